"""How a cluster is read: what is missing or refused leaves the rest as it is, and nothing that is silent is waited for long."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from podplane.apiserver.kinds.selectable import EVENTS
from podplane.apiserver.selectors import Selection
from podplane.cli.cluster import gather, parsed, reads
from podplane.cli.cluster.facts import Facts
from podplane.cli.cluster.problems import problems
from podplane.cli.errors import ClusterError
from podplane.dns.node import MANAGED_BY, PODPLANE
from podplane.kubeapi.access import Access
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.model.config import AGENT_PORT, AGENT_PORT_SAID, NAME_SERVER_PORT
from tests.unit.cli.clusters import READY, facts, node, pod
from tests.unit.cli.test_status import STATUS

NONE = NotFound(404, "NotFound", "not found")
REFUSED = ApiError(403, "Forbidden", "user may not")


def node_body(name: str, number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDRs": [f"10.244.{number}.0/24"]},
        "status": {"conditions": [READY], "addresses": [{"type": "InternalIP", "address": f"192.168.1.{number}"}]},
    }


def pod_body(name: str, node: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "podplane:1"}]},
        "status": {"conditions": [READY], **status},
    }


class Client:
    """An API in pages of two nodes; `errors` are those of resources, `silent` are resources and nodes that never answer."""

    def __init__(self, count: int = 3, silent: tuple[str, ...] = (), **errors: ApiError) -> None:
        self.access, self.viewer, self.date = Access("192.168.1.1", 6443), "", ""
        self.nodes = [node_body(f"w{n}", n) for n in range(1, count + 1)]
        self.pods = [pod_body(f"agent-w{n}", f"w{n}") for n in range(1, count + 1)]
        self.objects_by_kind: dict[str, list[dict[str, Any]]] = {}
        self.found: dict[str, Any] = {}
        self.errors, self.silent, self.released = errors, silent, threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.ports: list[tuple[str, str, int]] = []

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[Client]:
        yield self

    def _check(self, what: str) -> None:
        if what in self.silent:
            self.released.wait(10)
        if what in self.errors:
            raise self.errors[what]

    def raw(self, resource: str, namespace: str = "", **query: str) -> bytes:
        name = resource.partition(".")[0]
        self._check(name)
        items = {"nodes": self.nodes, "pods": self.pods}.get(name, self.objects_by_kind.get(name, []))
        start = int(query["continue"] or 0)
        more = {"continue": str(start + 2)} if start + 2 < len(items) else {}
        return msgspec.json.encode({"items": items[start : start + 2], "metadata": more})

    def objects(self, resource: str, namespace: str = "", **query: str) -> list[dict[str, Any]]:
        name = resource.partition(".")[0]
        self._check(name)
        selection = Selection.of("", "", "", query.get("fieldSelector", ""), EVENTS)
        found = [one for one in self.objects_by_kind.get(name, []) if selection.wanted is None or selection.wanted(one)]
        return found[: int(query.get("limit", len(found)))]

    def get(self, resource: str, namespace: str, name: str) -> Any:
        self._check(resource.partition(".")[0])
        if name not in self.found:
            raise NONE
        return self.found[name]

    def version(self) -> str:
        self._check("version")
        return "v1.36.3"

    def viewer_token(self, seconds: int) -> str:
        self._check("viewer")
        return "for readers"

    def of_node(self, node: str, port: int, path: str) -> Any:
        self.asked.append((node, path))
        self.ports.append((node, path, port))
        self._check(node)
        if path == "readyz":
            raise ApiError(503, "", "its Node has no block")
        return STATUS


def read(client: Client, *, everything: bool = False) -> Facts:
    try:
        return gather.facts(client, everything=everything)
    finally:
        client.released.set()


def test_a_cluster_is_read_page_by_page_and_all_agents_are_asked() -> None:
    client = Client(5)
    found = read(client)
    assert list(found.nodes) == ["w1", "w2", "w3", "w4", "w5"] and {pod.node for pod in found.pods} == set(found.nodes)
    assert set(found.told()) == set(found.nodes) and not found.unread
    assert (found.version, found.name_servers, found.daemon_set, client.viewer) == ("v1.36.3", None, None, "for readers")


def test_what_agents_that_are_not_ready_wait_for_is_asked_of_them() -> None:
    client = Client()
    client.pods[1]["status"]["conditions"] = []
    found = read(client)
    assert found.not_ready == {"w2": "its Node has no block"}
    assert [one for one in client.asked if one[1] == "readyz"] == [("w2", "readyz")]


def test_each_right_that_is_missing_is_named_and_the_rest_is_read() -> None:
    errors = dict.fromkeys(("pods", "events", "daemonsets", "deployments", "leases", "viewer"), REFUSED)
    found = read(Client(3, **errors))
    assert {one.what for one in found.unread} == {
        "get daemonsets.apps in kube-system",
        "get deployments.apps in kube-system",
        "list pods in kube-system",
        "get leases.coordination.k8s.io in kube-system",
        "list events in default",
        "create serviceaccounts/token of podplane-viewer in kube-system",
    }
    assert {one.why for one in found.unread} == {"this right is missing"} and len(found.nodes) == 3


def test_without_nodes_nothing_is_said() -> None:
    with pytest.raises(ClusterError, match="the right to list nodes is missing"):
        read(Client(3, nodes=REFUSED))
    with pytest.raises(ClusterError, match="can't be read: it is away"):
        read(Client(3, nodes=ApiError(503, "ServiceUnavailable", "it is away")))


def test_a_question_without_an_answer_holds_up_nothing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "API_SECONDS", 1.0)
    monkeypatch.setattr(gather, "AGENT_SECONDS", 1.0)
    found = read(Client(3, ("events", "w2")))
    assert {one.what: one.why for one in found.unread}["list events in default"] == "no answer within 1 s"
    assert "w2" not in found.told() and str(found.answers["w2"]) == "no answer within 1 s"


@pytest.mark.parametrize("count", [1, 100, gather.ASKED])
def test_however_many_agents_are_silent_they_are_waited_for_together(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.5 s with the start of the command and an API that answers in 0.2 s."""
    waited: list[tuple[float, ...]] = []

    def ask(client: Any, questions: list[Any], *seconds: float) -> dict[Any, Any]:
        waited.append(seconds)
        return dict.fromkeys(questions, NONE)

    monkeypatch.setattr(gather, "ask", ask)
    read(Client(count))
    ((in_all, starting, each),) = waited
    took = in_all - gather.AGENTS_SECONDS
    assert in_all == starting == gather.patience(count, took) and each < in_all
    assert gather.patience(count, 0.0) < 2 and gather.patience(10 * count + gather.ASKED, 0.0) > gather.patience(count, 0.0)


def test_networks_are_those_that_agents_are_told_of_then_kubeadms() -> None:
    client = Client()
    kubeadm = "networking: {podSubnet: 10.1.0.0/16, serviceSubnet: 10.2.0.0/16}"
    client.found["kubeadm-config"] = {"data": {"ClusterConfiguration": kubeadm}}
    assert (read(client).cluster_cidrs, read(client).service_cidrs) == (("10.1.0.0/16",), ("10.2.0.0/16",))
    client.found["podplane-agent"] = {"data": {"config": "network: {cluster_cidrs: [10.3.0.0/16]}"}}
    client.objects_by_kind["servicecidrs"] = [{"spec": {"cidrs": ["10.4.0.0/16"]}}]
    assert (read(client).cluster_cidrs, read(client).service_cidrs) == (("10.3.0.0/16",), ("10.4.0.0/16",))
    bomb = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
    client.found["podplane-agent"] = {"data": {"config": f"{bomb}\nnetwork: {{cluster_cidrs: [*a39, 10.3.0.0/16]}}"}}
    assert read(client).cluster_cidrs == ("10.3.0.0/16",), "nobody writes out what aliases stand for"
    client.found["podplane-agent"] = {"data": {"config": "- [:"}}
    assert read(client).cluster_cidrs == ("10.1.0.0/16",)


def test_name_servers_are_the_ready_endpoints_of_the_service() -> None:
    client = Client()
    client.found["kube-dns"] = {}
    assert read(client).name_servers == 0
    endpoints = [{"conditions": {"ready": True}}, {"conditions": {"ready": False}}, {}]
    client.objects_by_kind["endpointslices"] = [{"metadata": {}, "endpoints": endpoints}, {"metadata": {}, "endpoints": None}]
    assert read(client).name_servers == 2


def test_warnings_are_podplanes_own_the_latest_first() -> None:
    def event(name: str, last: str, **more: Any) -> dict[str, Any]:
        return {
            "involvedObject": {"kind": "Node", "name": name},
            "type": "Warning",
            "reason": "NotApplied",
            "message": name,
            "metadata": {},
            "lastTimestamp": last,
            **more,
        }

    client = Client()
    of_kubelets = event("w3", "2026-03-01T11:45:00Z", source={"component": "kubelet"})
    client.objects_by_kind["events"] = [
        *[of_kubelets] * int(reads.PAGE),
        event("w1", "2026-03-01T11:00:00Z", reportingComponent="podplane"),
        event("w2", "2026-03-01T11:30:00Z", source={"component": "podplane"}, count=3),
    ]
    assert [(one.node, one.count) for one in read(client).warnings] == [("w2", 3), ("w1", 1)]


def test_where_nodes_offer_name_servers_these_are_asked_too() -> None:
    client = Client()
    read(client)
    assert {port for _, _, port in client.ports} == {AGENT_PORT}
    client.objects_by_kind["endpointslices"] = [{"metadata": {"labels": {MANAGED_BY: PODPLANE}}, "endpoints": []}]
    found = read(client)
    assert [one["node"] for one in found.servers] == ["w1", "w2", "w3"], "what is no answer of a server is an error"
    assert {port for _, _, port in client.ports} == {AGENT_PORT, NAME_SERVER_PORT}


def test_an_agent_is_asked_at_the_port_that_its_node_says() -> None:
    client = Client()
    client.nodes[1]["metadata"]["annotations"] = {AGENT_PORT_SAID: "10356"}
    client.nodes[2]["metadata"]["annotations"] = {AGENT_PORT_SAID: "9" * 5000}
    read(client)
    assert {(node, port) for node, _, port in client.ports} == {("w1", 10256), ("w2", 10356), ("w3", 10256)}


def test_of_a_pod_it_is_told_what_it_waits_for() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    bodies = [
        pod_body("a", "w1", conditions=[], containerStatuses=[waiting]),
        pod_body("b", "w1"),
        {**pod_body("c", "w1"), "metadata": {"name": "c", "deletionTimestamp": "2026-03-01T11:00:00Z"}},
    ]
    assert [parsed.agent_pod(one).why for one in bodies] == ["ImagePullBackOff: no such image", "", "it ends"]
    assert [parsed.agent_pod(one).is_ready for one in bodies] == [False, True, False]
    bodies[1]["metadata"]["creationTimestamp"] = "2026-03-01T11:00:00Z"
    assert [parsed.agent_pod(one).made for one in bodies[:2]] == [None, datetime.datetime(2026, 3, 1, 11, tzinfo=datetime.UTC)]


def test_of_a_large_cluster_those_that_look_wrong_are_asked_and_some_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"w{n}" for n in range(1, 1001)]
    wrong = {"w500", "w900"}
    nodes = [node(name, conditions=[] if name in wrong else [READY], cidrs=[], ips=[]) for name in names]
    found = facts(*nodes, pods=tuple(pod(name) for name in names if name != "w7"), answers={})
    asked = gather.chosen(found, False)
    assert wrong | {"w7"} <= set(asked) and len(asked) <= gather.ASKED and len(set(asked)) == len(asked)
    assert len(asked) > gather.ASKED / 2 and set(asked[:100]).isdisjoint(wrong), "those that may hold up others are the last"
    assert set(gather.chosen(found, True)) == set(names)
    all_wrong = facts(*(node(name, conditions=[], cidrs=[], ips=[]) for name in names))
    assert len(gather.chosen(all_wrong, False)) == gather.ASKED


def test_nodes_that_run_something_else_are_not_asked() -> None:
    assert list(gather.chosen(facts(node("w1"), node("win", os="windows")), False)) == ["w1"]


def test_every_question_has_its_right_in_words() -> None:
    assert {key: read.right for key, read in reads.READS.items() if key in ("nodes", "pods", "viewer")} == {
        "nodes": "list nodes",
        "pods": "list pods in kube-system",
        "viewer": "create serviceaccounts/token of podplane-viewer in kube-system",
    }


def test_ages_are_by_the_clock_of_the_api() -> None:
    """A machine of a user may be ahead of the cluster, or behind."""
    client = Client()
    client.date = "Sun, 01 Mar 2020 12:00:00 GMT"
    spec = {"holderIdentity": "w1", "renewTime": "2020-03-01T11:59:59.500000Z", "leaseDurationSeconds": 10}
    client.found["podplane-controllers"] = {"metadata": {"name": "podplane-controllers"}, "spec": spec}
    found = read(client)
    assert found.now == datetime.datetime(2020, 3, 1, 12, tzinfo=datetime.UTC)
    assert not [one.text for one in problems(found) if "has not said so" in one.text]
    client.date = "Sun, 01 Mar 2020 12:00:40 GMT"
    assert [one.text for one in problems(read(client)) if "has not said so for 40 s" in one.text]


@pytest.mark.parametrize("said", ["", "yesterday"])
def test_an_api_without_a_clock_leaves_that_of_the_machine(said: str) -> None:
    client = Client()
    client.date = said
    assert abs((read(client).now - datetime.datetime.now(datetime.UTC)).total_seconds()) < 600


def test_why_a_container_ended_last_is_told_of_a_pod_that_is_not_ready() -> None:
    unready = {"type": "Ready", "status": "False", "message": "containers with unready status: [agent]"}
    ended = {"terminated": {"finishedAt": "2026-03-01T11:59:00Z", "message": "begins\nError: node_name: 'A' is no name\n"}}
    running = {"name": "agent", "state": {"running": {}}, "lastState": ended}
    body = pod_body("a", "w1", phase="Running", conditions=[unready], containerStatuses=[running])
    assert parsed.agent_pod(body).why == "Error: node_name: 'A' is no name"
    running["lastState"] = {}
    assert parsed.agent_pod(body).why == unready["message"]
