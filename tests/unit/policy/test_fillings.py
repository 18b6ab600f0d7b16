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
from podplane.policy.peers import GroupSet, NamedPort, Opening, PeerSet
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
    return Filling(peers, sets, lambda selector: list(pods))


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
        present = list(first)
        one, there = filling(peers, present), Counter(pod.metadata.name for pod in first)
        for number, pod in enumerate(moved):
            joins = not there[pod.metadata.name]
            there[pod.metadata.name] += 1 if joins else -1
            (present.append if joins else present.remove)(pod)
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
    one = Filling(peers, sets, lambda selector: [PODS[1]], former.values)
    assert contents(one) == contents(former) and one.lost() == []
    one.step()
    assert set(contents(one).values()) == {"pod/a/p1"}
    assert sorted(one.lost()) == ["10.0.0.1", "fd00::1"] and one.lost() == []


def test_a_long_name_is_cut_as_elsewhere() -> None:
    pod = PodInfo(SlimMetadata("x" * 253, "a"), "node1", ("10.0.0.1",))
    (comment,) = contents(_alone(PeerSet(SELECTOR), pod)).values()
    assert len(comment.encode()) <= COMMENT_BYTES and comment.startswith("pod/a/xxx")


def test_each_selector_is_asked_when_its_turn_comes_and_no_step_takes_more_than_its_part() -> None:
    """So what is told of one before it was asked does not count: it is in what is answered then."""
    selectors = [PodSelector(f"n{n}") for n in range(3)]
    pods = {
        one: [PodInfo(SlimMetadata(f"p{n}", "a"), "", (f"10.{k}.0.{n}",)) for n in range(5)] for k, one in enumerate(selectors)
    }
    asked: list[PodSelector] = []

    def candidates(selector: PodSelector) -> list[PodInfo]:
        asked.append(selector)
        return list(pods[selector])

    peers = GroupSet([Opening(one, "TCP", 80) for one in selectors])
    one = Filling(peers, {4: p.set_of(peers, 4)}, candidates)
    module.AT_ONCE, before = 2, module.AT_ONCE
    assert one.begin() and len(asked) == 1 and one.to_take >= 2
    first, last = asked[0], next(each for each in peers.selectors[::-1])
    gone, came = pods[last].pop(), PodInfo(SlimMetadata("new", "a"), "", ("10.9.0.1",))
    pods[first].append(came)
    one.tell([(last, gone, False), (first, came, True)])
    try:
        while not one.is_current:
            assert len(one.step()) <= 2
    finally:
        module.AT_ONCE = before
    assert asked == list(peers.selectors)
    assert {str(key[1]) for key in _keys(one)} == {ip for found in pods.values() for each in found for ip in each.ips}


def test_a_set_that_nobody_can_be_in_is_filled_at_once() -> None:
    peers = PeerSet(SELECTOR)
    assert not filling(peers, []).begin()
    sets = {4: p.set_of(peers, 4)}
    one = Filling(peers, sets, lambda selector: [], _alone(peers, PODS[0]).values)
    assert one.begin() and one.is_filled, "what it had is to be taken away"


def _keys(one: Filling) -> list[tuple[str, object]]:
    return [(v.set, v.key[0]) for members in one.values for v in members.elements()]
