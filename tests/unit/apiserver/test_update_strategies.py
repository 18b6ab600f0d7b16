"""The strategy of a workload changes its type: each kind by the rule that Kubernetes has for it (apps/validation)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.test_server import CONTAINER, Api, Object

APPS = "/apis/apps/v1/namespaces/default"
LABELS = {"app": "web"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}}


async def made(plural: str) -> Api:
    api = Api()
    body = {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}}
    await api("POST", f"{APPS}/{plural}", body)
    return api


@pytest.mark.parametrize(
    ("plural", "change", "why"),
    [
        (
            "deployments",
            {"strategy": {"type": "Recreate"}},
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "statefulsets",
            {"updateStrategy": {"type": "OnDelete"}},
            "spec.updateStrategy.rollingUpdate: Invalid value: ",
        ),
    ],
)
async def test_settings_of_the_former_type_are_refused(plural: str, change: Object, why: str) -> None:
    """Kubernetes drops none of them: a client takes them away with the type."""
    api = await made(plural)
    assert why in await api.refused("Invalid", "PATCH", f"{APPS}/{plural}/web", {"spec": change})


@pytest.mark.parametrize(
    ("plural", "field", "kind"),
    [
        ("deployments", "strategy", "Recreate"),
        ("statefulsets", "updateStrategy", "OnDelete"),
        ("daemonsets", "updateStrategy", "OnDelete"),
    ],
)
async def test_without_them_the_type_changes_and_changes_back(plural: str, field: str, kind: str) -> None:
    api, path = await made(plural), f"{APPS}/{plural}/web"
    before = (await api("GET", path))["spec"][field]
    changed = await api("PATCH", path, {"spec": {field: {"type": kind, "rollingUpdate": None}}})
    assert changed["spec"][field] == {"type": kind}
    back = await api("PATCH", path, {"spec": {field: {"type": "RollingUpdate"}}})
    if plural == "statefulsets":
        before = {"type": "RollingUpdate"}  # numbers have defaults only where the type has its own (SetDefaults_StatefulSet)
    assert back["spec"][field] == before


async def test_a_daemon_set_keeps_them() -> None:
    api, path = await made("daemonsets"), f"{APPS}/daemonsets/web"
    settings: dict[str, Any] = {"maxUnavailable": "10%", "maxSurge": 0}
    await api("PATCH", path, {"spec": {"updateStrategy": {"rollingUpdate": settings}}})
    changed = await api("PATCH", path, {"spec": {"updateStrategy": {"type": "OnDelete"}}})
    assert changed["spec"]["updateStrategy"] == {"type": "OnDelete", "rollingUpdate": settings}
