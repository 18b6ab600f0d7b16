"""What `cluster status` finds wrong: each kind by itself, in a cluster that is well otherwise."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from podplane.cli.cluster import blocks
from podplane.cli.cluster.facts import Facts, Unread, Warned
from podplane.cli.cluster.problems import problems
from podplane.cli.cluster.said import Problem
from podplane.kubeapi.errors import ApiError
from podplane.model.answers import PeerProblem
from podplane.model.config import BACKENDS
from podplane.model.lease import Lease, LeaseSpec
from tests.unit.cli.clusters import IMAGE, NOW, READY, answer, daemon_set, facts, node, pod

UNKNOWN = {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}
NOT_READY = {"type": "Ready", "status": "False", "message": "cni plugin not initialized"}
PEERS = {"type": "PeersUnreachable", "status": "True", "message": "w3 is not reached over vxlan"}
SILENT = ApiError(504, "Timeout", "no answer within 3 s")


def of(found: Facts) -> list[tuple[str, str]]:
    return [(",".join(one.nodes), one.text) for one in problems(found)]


def test_all_is_well() -> None:
    assert of(facts()) == []


def with_pods(**by_node: Any) -> tuple[Any, ...]:
    return tuple(by_node.get(name) or pod(name) for name in ("w1", "w2", "w3"))


def with_answers(**by_node: Any) -> dict[str, Any]:
    return {name: by_node.get(name) or answer(name) for name in ("w1", "w2", "w3")}


def lost(peer: str) -> dict[str, Any]:
    found = PeerProblem(
        peer=peer,
        backend="vxlan",
        families=[],
        underlay="reached",
        carried_in="UDP port 4789",
        loss=1.0,
        age=9.0,
        is_not_ready=False,
        is_withdrawn=False,
    )
    made: dict[str, Any] = msgspec.to_builtins(found)
    return made


CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def deployment(ready: int) -> dict[str, Any]:
    """Of two replicas, as the chart makes it."""
    pod = {"tolerations": [{"key": CONTROL_PLANE, "operator": "Exists", "effect": "NoSchedule"}]}
    return {"spec": {"replicas": 2, "template": {"spec": pod}}, "status": {"readyReplicas": ready}}


LEASE = Lease(spec=LeaseSpec(holder_identity="one", renew_time="2026-03-01T11:59:58.000000Z"))
REFUSED = {
    "object": "route 10.0.0.0/8",
    "wanted_by": [],
    "why": "Network is unreachable",
    "age": 9.0,
    "tries": 5,
    "next_try_in": 1.0,
}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (facts(node("w1"), node("w2", conditions=[NOT_READY])), [("w2", "is not ready: cni plugin not initialized")]),
        (facts(node("w1"), node("w2", conditions=[])), [("w2", "is not ready: its kubelet has not said that it is")]),
        (
            facts(node("w1"), node("w2", conditions=[UNKNOWN]), answers={"w1": answer("w1"), "w2": SILENT}),
            [("w2", "is not ready: its kubelet says nothing any more")],
        ),
        (
            facts(node("w1"), node("w2", conditions=[READY, {"type": "NetworkUnavailable", "status": "True"}])),
            [("w2", "NetworkUnavailable: says that its network is not available")],
        ),
        (facts(answers=with_answers(w2=SILENT)), [("w2", "its agent does not answer: no answer within 3 s")]),
        (
            facts(answers=with_answers(w2=ApiError(429, "TooManyRequests", "try again later"))),
            [("w2", "its agent is asked by too many, and has not said how it is: try again later")],
        ),
        (
            facts(answers=with_answers(w2=ApiError(401, "Unauthorized", "a bearer token is needed"))),
            [
                (
                    "w2",
                    "its agent does not know who asks: it, or the ServiceAccount kube-system/podplane-viewer, is of an older version, or "
                    "is not there",
                )
            ],
        ),
        (
            facts(answers=dict.fromkeys(("w1", "w2", "w3"), ApiError(403, "Forbidden", 'cannot get resource "nodes/proxy"'))),
            [("w1,w2,w3", "what agents say of themselves is not known: get nodes/proxy: this right is missing")],
        ),
        (
            facts(pods=(pod("w1"), pod("w3")), answers=with_answers(w2=SILENT)),
            [("w2", "no agent runs there: the DaemonSet made no pod for it")],
        ),
        (facts(pods=(*with_pods(), pod("w2", name="other"))), [("w2", "2 agents: agent-w2, other")]),
        (
            facts(pods=(*with_pods(), pod("w2", name="old", is_ready=False, why="it ends"))),
            [("w2", "its agent is not ready: it ends")],
        ),
        (
            facts(pods=with_pods(w2=pod("w2", is_ready=False, why="ImagePullBackOff: no such image"))),
            [("w2", "its agent is not ready: ImagePullBackOff: no such image")],
        ),
        (
            facts(
                pods=with_pods(w2=pod("w2", is_ready=False, why="containers with unready status: [agent]")),
                not_ready={"w2": "its Node has no block"},
                answers=with_answers(w2=SILENT),
            ),
            [("w2", "its agent is not ready: its Node has no block")],
        ),
        (
            facts(pods=with_pods(w2=pod("w2", restarts=3, restarted=NOW - datetime.timedelta(seconds=65)))),
            [("w2", "its agent was started again in the last 10 min")],
        ),
        (facts(pods=with_pods(w2=pod("w2", restarts=3, restarted=NOW - datetime.timedelta(days=1)))), []),
        (
            facts(pods=with_pods(w2=pod("w2", image_id="sha256:b"))),
            [("w2", f"the image {IMAGE} has another content there than on the other nodes")],
        ),
        (facts(answers=with_answers(w3=answer("w3", version="0.2.0"))), [("w3", "runs podplane 0.2.0, and most nodes 0.1.0")]),
        (facts(daemon_set=daemon_set(3, updatedNumberScheduled=1)), [("", "a new version rolls out: 1 node of 3 have it")]),
        (
            facts(daemon_set=daemon_set(3, observedGeneration=1)),
            [
                (
                    "",
                    "the latest change of the DaemonSet podplane-agent is seen by nobody yet: does kube-controller-manager run?",
                )
            ],
        ),
        (
            facts(daemon_set=daemon_set(0), pods=(), answers={}),
            [
                ("", "the DaemonSet podplane-agent is for no node: its nodeSelector or affinity matches none"),
                ("w1,w2,w3", "no agent runs there: the DaemonSet made no pod for it"),
            ],
        ),
        (
            facts(daemon_set=None, pods=(), answers=dict.fromkeys(("w1", "w2", "w3"), SILENT)),
            [("", "podplane is not installed: there is no DaemonSet kube-system/podplane-agent, and no node's agent answers")],
        ),
        (facts(daemon_set=None, pods=()), []),
        (facts(node("w1"), node("w2", cidrs=[])), [("w2", "has no block for pods (spec.podCIDRs)")]),
        (
            facts(node("w1"), node("w2", cidrs=["10.244.1.0/24"])),
            [("w2", "is left out in part: the block 10.244.1.0/24 is that of w1, too")],
        ),
        (
            facts(node("w1"), node("w2", cidrs=["10.1.0.0/24"])),
            [("w2", "the block 10.1.0.0/24 is outside of the network of pods 10.244.0.0/16")],
        ),
        (
            facts(node("w1"), node("w2", cidrs=["10.96.7.0/24"]), cluster_cidrs=()),
            [("w2", "the block 10.96.7.0/24 overlaps the network of Services 10.96.0.0/16")],
        ),
        (
            facts(
                node("w1", cidrs=["10.244.1.0/24", "fd00::/64"]),
                node("w2", cidrs=["10.244.2.0/24", "fd00:0:0:1::/64"]),
                node("w3"),
            ),
            [("w3", "has no block of IPv6, and most others have")],
        ),
        (facts(node("w1"), node("w2", ips=[])), [("w2", "has no InternalIP: no other node can reach it")]),
        (
            facts(node("w1"), node("w2", ips=["10.244.9.9"])),
            [("w2", "its address 10.244.9.9 is in the network of pods 10.244.0.0/16")],
        ),
        (facts(node("w1"), node("win", os="windows", cidrs=[], ips=[]), pods=(pod("w1"),), answers={"w1": answer("w1")}), []),
        (
            facts(network={"backend": "tunnel"}),
            [
                (
                    "",
                    "the ConfigMap kube-system/podplane-network does not count, and nodes go on with what they had: data.backend: ",
                )
            ],
        ),
        (
            facts(node("w1"), node("w2", annotations={BACKENDS: "host-gw"}), network={"backend": "vxlan"}),
            [("w2", "can't be reached by the backend vxlan, which the cluster wants: the former one goes on")],
        ),
        (facts(name_servers=0), [("", "no name server is ready: the Service kube-system/kube-dns has no ready endpoint")]),
        (facts(name_servers=None), []),
        (
            facts(controllers=Lease(spec=LeaseSpec(holder_identity="one", renew_time="2026-03-01T11:58:00.000000Z"))),
            [("", "one leads the controllers, and has not said so for 120 s")],
        ),
        (facts(controllers=Lease(spec=LeaseSpec(holder_identity="one", renew_time="2026-03-01T11:59:58.000000Z"))), []),
        (
            facts(servers=[{"node": "w2", "error": "no answer within 3 s"}]),
            [("w2", "its name server: no answer within 3 s")],
        ),
        (facts(servers=[{"node": "w9", "error": "no answer within 3 s"}]), []),
        (
            facts(controllers=Lease()),
            [("", "no replica of the controllers leads: nodes get no blocks of theirs, and load balancers no addresses")],
        ),
        (
            facts(deployment={"spec": {"replicas": 2}, "status": {"readyReplicas": 1}}, controllers=LEASE),
            [("", "1 of 2 replicas of the controllers ready")],
        ),
        (facts(node("w1"), deployment=deployment(ready=1), controllers=LEASE), []),
        (
            facts(node("w1"), deployment=deployment(ready=0), controllers=LEASE),
            [("", "0 of 1 replica of the controllers ready")],
        ),
        (
            facts(node("w1"), node("w2", taints=[{"key": CONTROL_PLANE}]), deployment=deployment(ready=1), controllers=LEASE),
            [("", "1 of 2 replicas of the controllers ready")],
        ),
        (facts(node("w1"), node("w2", taints=[{"key": "others"}]), deployment=deployment(ready=1), controllers=LEASE), []),
        (
            facts(deployment={"spec": {"replicas": 1}, "status": {"readyReplicas": 1}}),
            [("", "no replica of the controllers leads: nodes get no blocks of theirs, and load balancers no addresses")],
        ),
        (
            facts(node("w1"), node("w2", taints=[{"key": "node.podplane.io/not-ready", "effect": "NoSchedule"}])),
            [
                (
                    "w2",
                    "takes no pods because of the taint node.podplane.io/not-ready, which its agent takes off when pods can be attached",
                )
            ],
        ),
        (
            facts(unread=(Unread("list events in default", "this right is missing", "what agents warned of"),)),
            [("", "what agents warned of is not known: list events in default: this right is missing")],
        ),
        (
            facts(answers=with_answers(w2=answer("w2", refused=1, refused_objects=[REFUSED]))),
            [("w2", "the kernel refuses route 10.0.0.0/8: Network is unreachable")],
        ),
        (
            facts(
                answers=with_answers(
                    w2=answer(
                        "w2",
                        blocked=9,
                        blocked_keys=[{"key": f"pod/a/{n}", "feature": "pods", "why": "no address"} for n in range(9)],
                    )
                )
            ),
            [*(("w2", f"pod/a/{n} is blocked: no address") for n in range(3)), ("w2", "6 more objects are blocked")],
        ),
        (facts(answers=with_answers(w2=answer("w2", unmet=["its uplink is narrow"]))), [("w2", "its uplink is narrow")]),
        (
            facts(answers=with_answers(w2=answer("w2", api={"is_reached": False, "age": 9.0, "error": "connection refused"}))),
            [("w2", "it does not reach the API, and goes on with what it knew: connection refused")],
        ),
        (
            facts(answers=with_answers(w1=answer("w1", unreached=[lost("w3")]), w2=answer("w2", unreached=[lost("w3")]))),
            [("", "w3 is not reached by w1 and w2 over vxlan, but over the underlay: is UDP port 4789 filtered?")],
        ),
        (
            facts(node("w1"), node("w2", conditions=[READY, PEERS]), answers={"w1": answer("w1")}),
            [("w2", "does not reach peers: w3 is not reached over vxlan")],
        ),
    ],
)
def test_each_kind_of_trouble_is_told_once(found: Facts, told: list[tuple[str, str]]) -> None:
    said = of(found)
    assert [nodes for nodes, _ in said] == [nodes for nodes, _ in told], said
    assert all(text.startswith(wanted) for (_, text), (_, wanted) in zip(said, told, strict=True)), said


def test_a_cluster_that_podplane_is_taken_from_is_not_told_to_install_it() -> None:
    cleans = {"status": {"numberReady": 1, "desiredNumberScheduled": 3}}
    (one,) = problems(facts(daemon_set=None, pods=(), answers={}, removal=cleans))
    assert one.text == "podplane is being removed: 1 of 3 nodes are clean by the DaemonSet kube-system/podplane-uninstall"
    assert one.todo.startswith("podplane cluster uninstall")
    assert not any("removed" in one.text for one in problems(facts(removal=cleans))), "of some nodes alone"


def test_equal_troubles_of_several_nodes_are_one() -> None:
    found = facts(node("w1", cidrs=[]), node("w2", cidrs=[]))
    (one,) = problems(found)
    assert one.nodes == ("w1", "w2") and "--allocate-node-cidrs" in one.todo


@pytest.mark.parametrize(("count", "lines"), [(3, 3), (4, 1), (1000, 1)])
def test_many_of_one_kind_are_one(count: int, lines: int) -> None:
    names = [f"w{number}" for number in range(1, count + 1)]
    nodes = [node(name, cidrs=[f"10.{number // 250}.{number % 250}.0/24"]) for number, name in enumerate(names)]
    found = problems(facts(*nodes, cluster_cidrs=("10.244.0.0/16",), answers={}))
    outside = [one for one in found if "outside of the network of pods 10.244.0.0/16" in one.text]
    assert len(outside) == lines and {name for one in outside for name in one.nodes} == set(names)
    text = "the block 10.0.0.0/24 is outside of the network of pods 10.244.0.0/16"
    assert outside[0].text == (text if lines > 1 else f"have blocks outside of the network of pods 10.244.0.0/16; w1: {text}")
    assert {one.todo for one in outside} == {blocks.CORRECT}


def test_what_to_do_names_the_node_and_its_pod_where_it_is_one() -> None:
    unready = {name: pod(name, is_ready=False, why="CrashLoopBackOff") for name in ("w2", "w3")}
    (one,), (two,) = (
        problems(facts(pods=with_pods(**{name: unready[name] for name in names}))) for names in (["w2"], ["w2", "w3"])
    )
    assert (one.todo, two.todo) == ("kubectl -n kube-system logs agent-w2", "kubectl -n kube-system logs POD")
    assert two.nodes == ("w2", "w3")


def test_pods_of_a_node_are_looked_up() -> None:
    """However many nodes have troubles of their own, pods are gone through once."""

    class Counted(tuple[Any, ...]):
        gone_through = 0

        def __iter__(self) -> Iterator[Any]:
            self.gone_through += 1
            return super().__iter__()

    pods = Counted(pod(name) for name in ("w1", "w2", "w2"))
    found = facts(pods=pods)
    before = pods.gone_through
    assert [len(found.pods_of(name)) for name in ("w1", "w2", "w3")] == [1, 2, 0]
    assert pods.gone_through == before


@pytest.mark.parametrize(("cidrs", "todo"), [("10.99.0.0/16", blocks.CORRECT), ("10.244.0.0/16", blocks.ANEW)])
def test_where_most_blocks_are_outside_no_node_is_to_be_deleted(cidrs: str, todo: str) -> None:
    nodes = (node("w1"), node("w2", cidrs=["10.1.0.0/24"]), node("w3"))
    found = problems(facts(*nodes, cluster_cidrs=(cidrs,)))
    assert {one.todo for one in found if "outside of the network of pods" in one.text} == {todo}


def test_a_node_without_the_image_is_to_get_it_and_is_told_of_once() -> None:
    """That it does not follow to another backend is no trouble of its own."""
    nodes = (node("w1"), node("w2", annotations={BACKENDS: "host-gw"}))
    pods = (pod("w1"), pod("w2", is_ready=False, why="ErrImageNeverPull: Container image is not present"))
    found = problems(facts(*nodes, pods=pods, network={"backend": "vxlan"}, answers={"w1": answer("w1"), "w2": SILENT}))
    assert found == [
        Problem(
            "its agent is not ready: ErrImageNeverPull: Container image is not present",
            ("w2",),
            "load the image on that node (docs/install.md#the-image)",
        )
    ]


PROXIED = "error trying to reach service: dial tcp 192.168.1.12:10256: connect: connection refused"
UNREADY = "containers with unready status: [agent]"
EVENT = Warned("w2", "NetworkNotReady", "the kernel lacks nf_tables", NOW - datetime.timedelta(seconds=60))


@pytest.mark.parametrize(
    ("said", "why", "events", "told"),
    [
        ("its Node has no block", UNREADY, (EVENT,), "its Node has no block"),
        (PROXIED, "Error: no such setting", (EVENT,), "Error: no such setting"),
        (PROXIED, UNREADY, (EVENT,), EVENT.message),
        (PROXIED, UNREADY, (dataclasses.replace(EVENT, node="w1"),), PROXIED),
        (PROXIED, UNREADY, (dataclasses.replace(EVENT, last=NOW - datetime.timedelta(hours=1)),), PROXIED),
        ("", UNREADY, (), UNREADY),
    ],
)
def test_an_agent_that_does_not_listen_has_said_why_before(said: str, why: str, events: Any, told: str) -> None:
    pods = with_pods(w2=pod("w2", is_ready=False, why=why))
    found = of(facts(pods=pods, warnings=events, not_ready={"w2": said} if said else {}))
    assert ("w2", f"its agent is not ready: {told}") in found


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(20, "it has been starting for 20 s"), (61, EVENT.message), (58, "it has been starting for 58 s")],
)
def test_what_an_agent_before_it_said_is_not_told_of_an_agent_that_starts(seconds: int, told: str) -> None:
    pods = with_pods(w2=pod("w2", is_ready=False, why=UNREADY, made=NOW - datetime.timedelta(seconds=seconds)))
    found = of(facts(pods=pods, warnings=(EVENT,), not_ready={"w2": PROXIED}))
    assert ("w2", f"its agent is not ready: {told}") in found
