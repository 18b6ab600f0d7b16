"""Rights that an agent does not have are named with verb and resource, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel.namespace import CurrentNamespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine import permitted, preflight, rbac
from podplane.machine.one_machine import OneMachine
from podplane.machine.permitted import Given, lacks
from podplane.machine.preflight import Preflight
from tests.plans import agent_settings, node

BASIC = {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectrulesreviews"]}


class FakeApi(Client):
    """An API with RBAC, where an agent may do this, by namespace ("": in all)."""

    def __init__(self, rules: dict[str, list[dict[str, Any]]], error: ApiError | None = None, **status: Any) -> None:
        self._rules, self._error, self._status = rules, error, status
        self.asked: list[str] = []

    async def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert resource == permitted.REVIEWS
        if self._error is not None:
            raise self._error
        where = body["spec"]["namespace"]
        self.asked.append(where)
        return {"status": {"resourceRules": [*self._rules.get("", []), *self._rules.get(where, []), BASIC], **self._status}}


def granted(*without: tuple[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What `podplane agent rbac` grants, but for these (resource, verb)."""
    found: dict[str, list[dict[str, Any]]] = {}
    for rule in rbac.RULES:
        for resource in rule.resources:
            verbs = [verb for verb in rule.verbs if (resource, verb) not in without]
            names = {"resourceNames": list(rule.names)} if rule.names else {}
            row = {"verbs": verbs, "apiGroups": [rule.group], "resources": [resource], **names}
            found.setdefault(rule.namespace, []).append(row)
    return found


async def test_with_all_rights_nothing_is_missing_and_a_question_a_namespace_is_asked() -> None:
    api = FakeApi(granted())
    assert await permitted.missing(api) == []
    assert sorted(api.asked) == ["default", "kube-node-lease", "kube-system"]
    everything = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    assert await permitted.missing(FakeApi({"": everything})) == []


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (("nodes", "patch"), "to patch nodes: apply what `podplane agent rbac` prints"),
        (("nodes/status", "patch"), "to patch nodes/status: apply"),
        (("leases", "get"), "to get leases.coordination.k8s.io in kube-node-lease: apply"),
        (("servicecidrs", "list"), "to list servicecidrs.networking.k8s.io: apply"),
        (("configmaps", "get"), "to get configmaps kubeadm-config in kube-system: apply"),
    ],
)
async def test_what_is_missing_is_named(without: tuple[str, str], said: str) -> None:
    (line,) = await permitted.missing(FakeApi(granted(without)))
    assert line.startswith("the API does not permit this agent to") and said in line and ";" not in line


async def test_several_are_one_line() -> None:
    (line,) = await permitted.missing(FakeApi(granted(("pods", "patch"), ("events", "create"))))
    assert "to patch pods; to create events: apply" in line


async def test_an_answer_that_may_lack_something_says_nothing() -> None:
    assert await permitted.missing(FakeApi({}, incomplete=True)) == []
    for code in (403, 404):
        assert await permitted.missing(FakeApi({}, ApiError(code, "", ""))) == []
    with pytest.raises(ApiError):
        await permitted.missing(FakeApi({}, ApiError(503, "", "")))


def test_a_rule_about_some_names_gives_no_right_to_others() -> None:
    rules = [rule for rule in rbac.RULES if rule.names]
    given = Given(("get",), ("",), ("configmaps",), ("another",))
    assert [right.name for right in lacks(rules, [given])] == ["kubeadm-config"]


async def test_an_api_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents start again while the API is away."""

    class Hanging(FakeApi):
        async def create(self, resource: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
            self.asked.append(namespace)
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(preflight, "ANSWER_SECONDS", 0.01)
    api = Hanging({})
    one = OneMachine(api, {}, "node1", "own")
    looks = Preflight(CurrentNamespace(), api, one, str(tmp_path), "", "")
    for _ in range(2):
        async with asyncio.timeout(60):
            facts = await looks.look(agent_settings((4,)).network, (), node(1, (4,)), (), ())
        assert facts.missing_rights == ()
    assert len(api.asked) == 1, "not each look waits anew"
