"""What is in a set of peers, after whatever comes and goes among its pods, with addresses that several of them have."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.model.pod_info import NamedPort as ContainerPort
from podplane.model.pod_info import PodInfo, Ports, SlimMetadata
from podplane.model.policy import PodSelector
from podplane.policy import filling as module
from podplane.policy import peers as p
from podplane.policy.filling import Filling
from podplane.policy.peers import NamedPort, PeerSet
from podplane.state.nft import COMMENT_BYTES

SELECTOR = PodSelector("a")
PORTS = Ports((ContainerPort("http", "TCP", 80), ContainerPort("http", "TCP", 81), ContainerPort("http", "UDP", 80)))
PODS = [
    PodInfo(SlimMetadata(f"p{n}", "a"), "node1", ips, ports=PORTS)
    for n, ips in enumerate(
        [("10.0.0.1", "fd00::1"), ("10.0.0.1",), ("10.0.0.2",), ("10.0.0.1", "10.0.0.3"), ("none", "fd00::2")]
    )
]


def filling(peers: PeerSet, pods: list[PodInfo]) -> Filling:
    sets = {version: p.set_of(peers, version) for version in (4, 6)}
    return Filling(peers, sets, [(SELECTOR, pods)])


def contents(one: Filling) -> dict[tuple[str, object], str]:
    return {(v.set, v.key): v.comment for members in one.values for v in members.elements()}


@settings(max_examples=60, derandomize=True, database=None)
@given(
    st.lists(st.sampled_from(PODS), unique_by=lambda pod: pod.metadata.name, max_size=4),
    st.lists(st.sampled_from(PODS), max_size=30),
    st.sampled_from((None, NamedPort("TCP", "http"))),
    st.integers(1, 7),
)
def test_it_has_an_element_of_some_pod_for_each_key_that_any_has(
    first: list[PodInfo], moved: list[PodInfo], port: NamedPort | None, at_once: int
) -> None:
    peers = PeerSet(SELECTOR, port)
    before, module.AT_ONCE = module.AT_ONCE, at_once
    try:
        one, there = filling(peers, first), Counter(pod.metadata.name for pod in first)
        for number, pod in enumerate(moved):
            joins = not there[pod.metadata.name]
            there[pod.metadata.name] += 1 if joins else -1
            one.tell([(SELECTOR, pod, joins)])
            if number % 3 == 0:
                one.step()
        while not one.is_current:
            one.step()
    finally:
        module.AT_ONCE = before
    wanted: dict[tuple[str, object], set[str]] = {}
    for pod in PODS:
        if there[pod.metadata.name]:
            for key, comment in contents(_alone(peers, pod)).items():
                wanted.setdefault(key, set()).add(comment)
    found = contents(one)
    assert found.keys() == wanted.keys()
    assert all(comment in wanted[key] for key, comment in found.items())


def _alone(peers: PeerSet, pod: PodInfo) -> Filling:
    one = filling(peers, [pod])
    while not one.is_current:
        one.step()
    return one


def test_until_it_is_filled_it_has_what_it_had_before_and_then_says_what_it_lost() -> None:
    peers = PeerSet(SELECTOR)
    former = _alone(peers, PODS[0])
    sets = {version: p.set_of(peers, version) for version in (4, 6)}
    one = Filling(peers, sets, [(SELECTOR, [PODS[1]])], former.values)
    assert contents(one) == contents(former) and one.lost() == []
    one.step()
    assert set(contents(one).values()) == {"pod/a/p1"}
    assert sorted(one.lost()) == ["10.0.0.1", "fd00::1"] and one.lost() == []


def test_a_long_name_is_cut_as_elsewhere() -> None:
    pod = PodInfo(SlimMetadata("x" * 253, "a"), "node1", ("10.0.0.1",))
    (comment,) = contents(_alone(PeerSet(SELECTOR), pod)).values()
    assert len(comment.encode()) <= COMMENT_BYTES and comment.startswith("pod/a/xxx")
