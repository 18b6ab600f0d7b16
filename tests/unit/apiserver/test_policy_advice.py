"""What the API warns of when somebody tries a write of a NetworkPolicy, or of labels that policies read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from podplane.apiserver import policy_advice, seen_flows
from podplane.apiserver.policy_advice import Change, PolicyAdvice
from podplane.apiserver.seen_flows import Asked, NodesAsked
from podplane.apiserver.server import warning
from podplane.kubeapi.streams import StreamError
from podplane.model.answers import Party, SeenFlow, SeenFlows
from podplane.model.config import AGENT_PORT
from podplane.model.objects import Metadata, Node, NodeAddress, NodeStatus
from podplane.model.words import command_line
from podplane.policy import told as told_module
from tests.unit.apiserver.test_server import PODS, Api
from tests.unit.virtual_time import virtual

Object = dict[str, Any]
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
CLUSTER_POLICIES = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
DNS = {
    "metadata": {"name": "kube-dns"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]},
}
DENY = {"metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}}
DRY = {"dryRun": "All"}


@pytest.fixture
async def api() -> Api:
    """Two pods with addresses, on two nodes."""
    api = Api()
    for number, name in ((1, "client"), (2, "web")):
        await api.node(f"node{number}")
        await api.pod(name, labels={"app": name}, nodeName=f"node{number}")
        await api("PATCH", f"{PODS}/{name}/status", {"status": {"phase": "Running", "podIPs": [{"ip": f"10.244.{number}.2"}]}})
    return api


async def warned(api: Api, method: str, path: str, body: Any = None, **query: str) -> list[str]:
    answer = await api.answer(method, path, body, **query)
    assert answer.status < 300, answer.body
    texts = [value.encode("latin-1").decode() for name, value in answer.headers if name == "warning"]
    return [re.sub(r'^299 - "(.*)"$', r"\1", text) for text in texts]


def denied(*flows: str) -> str:
    what = "flows would be denied that were" if len(flows) > 1 else "flow would be denied that was"
    return f"{len(flows)} {what} allowed: {', '.join(flows)}"


async def test_a_dry_run_names_the_flows_that_change(api: Api) -> None:
    flows = ("default/client → default/web", "other addresses outside → default/web")
    assert await warned(api, "POST", POLICIES, DENY, **DRY) == [denied(*flows)]
    assert await api.names(POLICIES) == []
    await api("POST", POLICIES, DENY)
    assert await warned(api, "DELETE", f"{POLICIES}/deny", **DRY) == [
        denied(*flows).replace("denied that were allowed", "allowed that were denied")
    ]
    rules = {"spec": {"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]}}
    text = ["1 flow would be allowed that was denied: default/client → default/web:80"]
    assert await warned(api, "PATCH", f"{POLICIES}/deny", rules, **DRY) == text
    whole = {**DENY, "spec": {**DENY["spec"], **rules["spec"]}}
    assert await warned(api, "PUT", f"{POLICIES}/deny", whole, **DRY) == text
    assert await warned(api, "PATCH", f"{POLICIES}/deny", {"metadata": {"labels": {"a": "b"}}}, **DRY) == []


async def test_labels_of_pods_and_namespaces_that_policies_read_are_tried(api: Api) -> None:
    await api("POST", POLICIES, DENY)
    assert await warned(api, "PATCH", f"{PODS}/client", {"metadata": {"labels": {"app": "web"}}}, **DRY) == [
        denied("default/web → default/client", "other addresses outside → default/client")
    ]
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}
    await api("PATCH", f"{POLICIES}/deny", {"spec": {"ingress": [rule]}})
    assert await warned(api, "PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": {"team": "a"}}}, **DRY) == [
        "1 flow would be allowed that was denied: default/client → default/web"
    ]
    await api("PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": {"team": "a"}}})
    assert await warned(api, "DELETE", f"{PODS}/client", **DRY) == []
    assert await warned(api, "PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": {"more": "a"}}}, **DRY) == []


async def test_it_is_about_the_cluster_as_it_is(api: Api) -> None:
    """What was written after the first dry run counts in the next one; so does what went, and what was refused does not."""
    await warned(api, "POST", POLICIES, DENY, **DRY)
    await api("DELETE", f"{PODS}/client", {"gracePeriodSeconds": 0})
    assert await warned(api, "POST", POLICIES, DENY, **DRY) == [denied("other addresses outside → default/web")]
    await api.pod("late", nodeName="node1")
    await api("PATCH", f"{PODS}/late/status", {"status": {"podIPs": [{"ip": "10.244.1.3"}]}})
    with pytest.raises(ZeroDivisionError), api.server.transaction():
        api.server.ensure(POLICIES, DENY)
        raise ZeroDivisionError
    assert await warned(api, "POST", POLICIES, DENY, **DRY) == [
        denied("default/late → default/web", "other addresses outside → default/web")
    ]


async def test_mistakes_in_a_policy_are_named_when_it_is_written(api: Api) -> None:
    await api("POST", "/api/v1/namespaces/kube-system/services", DNS)
    body = {"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"app": "wbe"}}, "policyTypes": ["Egress"]}}
    nothing = "NetworkPolicy default/p: selects no pod so far: no pod of namespace default has app=wbe"
    assert await warned(api, "POST", POLICIES, body, **DRY) == [nothing]
    assert await warned(api, "POST", POLICIES, body) == [nothing]
    web = {"spec": {"podSelector": {"matchLabels": {"app": "web"}}}}
    cut_off = "NetworkPolicy default/p: default/web can't ask the cluster's DNS: no egress rule allows UDP 53 to it"
    tried = await warned(api, "PATCH", f"{POLICIES}/p", web, **DRY)
    assert tried[0].startswith(
        "3 flows would be denied that were allowed: default/web → default/client, default/web → the cluster's DNS"
    )
    assert tried[1:] == [cut_off]
    assert await warned(api, "PATCH", f"{POLICIES}/p", web) == [cut_off]
    assert await warned(api, "PATCH", f"{POLICIES}/p", {"metadata": {"labels": {"a": "b"}}}) == []
    rules = {"spec": {"egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}] * 7}}
    texts = await warned(api, "PATCH", f"{POLICIES}/p", rules)
    assert texts[0] == "NetworkPolicy default/p: egress rule 1: no namespace has team=a"
    assert texts[2] == "NetworkPolicy default/p: egress rule 2: allows nothing that egress rule 1 does not"
    assert texts[5:] == ["NetworkPolicy default/p: 8 more; `podplane policy lint` shows them"]
    assert await warned(api, "DELETE", f"{POLICIES}/p") == []


async def test_mistakes_in_policies_of_the_cluster_are_named_when_they_are_written(api: Api) -> None:
    await api("POST", "/api/v1/namespaces/kube-system/services", DNS)
    await api("POST", POLICIES, DENY)
    subject = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}
    spec = {"tier": "Admin", "priority": 5, "subject": subject, "egress": [{"action": "Deny", "to": [{"namespaces": {}}]}]}
    guard = {"metadata": {"name": "guard"}, "spec": spec}
    name = "ClusterNetworkPolicy guard"
    cut_off = (
        f"{name}: default/client, default/web can't ask the cluster's DNS: {name} egress rule 1 (Deny) denies UDP 53 to it"
    )
    tried = await warned(api, "POST", CLUSTER_POLICIES, guard, **DRY)
    assert tried[0].startswith("3 flows would be denied that were allowed: ") and tried[1:] == [cut_off]
    assert await warned(api, "POST", CLUSTER_POLICIES, guard) == [cut_off]
    assert await warned(api, "PATCH", f"{CLUSTER_POLICIES}/guard", {"spec": {"priority": 6}}) == [], "it did so before"
    accept = {"metadata": {"name": "open"}, "spec": {**spec, "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}]}}
    del accept["spec"]["egress"]
    assert await warned(api, "POST", CLUSTER_POLICIES, accept) == [
        "ClusterNetworkPolicy open: ingress rule 1 (Accept): decides about all pods before NetworkPolicy default/deny"
    ]
    by = "ClusterNetworkPolicy open ingress rule 1 (Accept) goes before it and lets all pods in"
    assert await warned(api, "POST", POLICIES, {**DENY, "metadata": {"name": "two"}}) == [
        f"NetworkPolicy default/two: keeps no pod out, because {by}"
    ]


async def test_other_writes_read_nothing(api: Api) -> None:
    await api("PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": {"team": "a"}}})
    await api("PATCH", f"{PODS}/web", {"metadata": {"labels": {"team": "a"}}})
    assert api.server._advice._world is None
    await warned(api, "POST", POLICIES, DENY)
    assert api.server._advice._world is not None


async def test_many_at_once_have_the_same_answers(api: Api) -> None:
    body = {**DENY, "metadata": {"generateName": "deny-"}}
    answers = await asyncio.gather(*(warned(api, "POST", POLICIES, body, **DRY) for _ in range(8)))
    assert len({tuple(one) for one in answers}) == 1
    assert answers[0]


async def test_an_answer_does_not_wait_for_a_cluster_that_is_too_large(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read by then stays read: later tries begin where that one ended."""
    monkeypatch.setattr(policy_advice, "TICKS", 1)
    now = iter(range(1000))
    advice = PolicyAdvice(api.store, lambda: next(now))
    change = Change(policy_advice.POLICIES, None, {"metadata": {"name": "deny", "namespace": "default"}, "spec": {}})
    answers = [await advice.of(change, dry_run=True) for _ in range(40)]
    assert answers[0] == [policy_advice.TOO_LARGE.format(command="podplane policy diff -f FILE")]
    read = advice._world
    assert read is not None
    assert {pod.metadata.name for pod in read.pods()} == {"client", "web"}


async def test_a_fault_of_the_advice_fails_no_write(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_advice, "differences", lambda *_: 1 / 0)
    assert await warned(api, "POST", POLICIES, DENY, **DRY) == []


async def test_what_nodes_saw_comes_first_and_who_did_not_say_it_is_named(api: Api) -> None:
    client, web = (Party(f"10.244.{number}.2", "pod", f"default/{name}") for number, name in ((1, "client"), (2, "web")))
    asked: list[list[str]] = []

    async def ask(nodes: Sequence[Node], seconds: float) -> Asked:
        assert 0.5 <= seconds <= policy_advice.DRY_RUN_SECONDS
        asked.append([node.metadata.name for node in nodes])
        return Asked(
            [SeenFlow(Party("203.0.113.7"), web, "TCP", 80, 4.0), SeenFlow(web, client, "TCP", 1, 1.0)], silent=["node2"]
        )

    advice = PolicyAdvice(api.store, ask=ask)
    deny = {**DENY, "metadata": {"name": "deny", "namespace": "default"}}
    assert await advice.of(Change(policy_advice.POLICIES, None, deny), dry_run=True) == [
        "2 flows would be denied that were allowed, 1 of them seen in the last hour: "
        "other addresses outside → default/web (seen in the last 2 min), default/client → default/web",
        "what node2 saw in the last hour is not known",
    ]
    assert asked == [["node1", "node2"]]
    await advice.of(Change(policy_advice.POLICIES, None, deny), dry_run=False)
    await advice.of(Change(policy_advice.POLICIES, deny, deny), dry_run=True)
    assert len(asked) == 1, "no flow would change"


async def test_of_a_policy_that_goes_all_flows_are_shown_by_the_command_for_that(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told_module, "SHOWN", 1)
    await api("POST", POLICIES, DENY)
    (said,) = await warned(api, "DELETE", f"{POLICIES}/deny", **DRY)
    assert said.endswith(" and 1 more (`podplane policy diff --delete -f FILE` shows all)")
    (said,) = await warned(api, "POST", POLICIES, {**DENY, "metadata": {"name": "b"}, "spec": {"podSelector": {}}}, **DRY)
    assert said.endswith(" and 1 more (`podplane policy diff -f FILE` shows all)")
    monkeypatch.setattr(policy_advice, "TICKS", 1)
    monkeypatch.setattr(policy_advice, "DRY_RUN_SECONDS", 0.0)
    gone = Change(policy_advice.POLICIES, {**DENY, "metadata": {"name": "deny", "namespace": "default"}}, None)
    named = partial(command_line, lab="two")
    (said,) = await PolicyAdvice(api.store, command=named).of(gone, dry_run=True)
    assert said.startswith("the cluster is too large") and said.endswith(
        "`podplane policy diff --name two --delete -f FILE` shows all of them"
    )


class Agents:
    """What reaches into nodes, of which some agents answer."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self.answers = answers

    async def dial(self, host: str, port: int, *, tls: bool = False) -> Talk:
        assert port == AGENT_PORT and not tls
        if host not in self.answers:
            raise StreamError("connection refused")
        return Talk(self.answers[host])


class Talk:
    """A connection to one agent."""

    def __init__(self, body: bytes) -> None:
        self.body, self.parts = body, [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body, b""]

    async def write(self, data: bytes) -> None:
        assert data.startswith(b"GET /flows HTTP/1.1\r\n") and b"authorization: Bearer secret\r\n" in data

    async def read(self) -> bytes:
        if self.body == b"never":
            await asyncio.Event().wait()
        return self.parts.pop(0)

    def close(self) -> None:
        self.parts = [b""]


@virtual
async def test_all_nodes_are_asked_and_none_is_waited_for_long() -> None:
    flow = SeenFlow(Party("10.244.1.2"), Party("10.244.1.3"), "TCP", 80, 4.0)
    good = msgspec.json.encode(SeenFlows("node1", 5.0, "", [flow], [flow]))
    failed = msgspec.json.encode(SeenFlows("node5", 5.0, "no memory", []))
    found = {"10.0.0.1": good, "10.0.0.2": b"never", "10.0.0.4": b"[]", "10.0.0.5": failed}
    status = [NodeStatus(addresses=(NodeAddress("InternalIP", f"10.0.0.{n}"),)) for n in range(1, 6)]
    nodes = [Node(metadata=Metadata(name=f"node{n}"), status=one) for n, one in enumerate(status, 1)]
    agents: Any = Agents(found)
    said = await NodesAsked(lambda: agents, "secret")([*nodes, Node(metadata=Metadata(name="new"))], 0.5)
    assert said.flows == said.denied == [flow] and said.silent == ["node2", "node3", "node4", "node5"]
    assert seen_flows.silent_text(said.silent) == "what node2, node3, node4 and 1 more saw in the last hour is not known"
    assert await NodesAsked(lambda: None, "secret")(nodes, 0.5) == Asked()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a → b", "a \xe2\x86\x92 b"),
        ('say "a\\b"', 'say \\"a\\\\b\\"'),
        ("a\nb\x7f\u202e", "ab\\\\x7f\\\\u202e"),
        ("\udc80", "\\\\udc80"),
    ],
)
def test_a_warning_is_a_quoted_string_of_utf8(text: str, value: str) -> None:
    assert warning(text) == f'299 - "{value}"'
