"""Sets of ports: what both, or either, of two have."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.policy import PROTOCOLS
from podplane.policy.reach import EVERYTHING, NOTHING, Ports, Reach, reach
from tests.unit.policy.cluster import end, index_of, namespace, pod, policy

ASKED = [("ICMP", None), *((protocol, port) for protocol in ("TCP", "UDP") for port in (1, *range(77, 85), 65535))]
RANGES = st.builds(
    lambda protocol, first, length: Ports(protocol, first, first + length),
    st.sampled_from(["TCP", "UDP"]),
    st.integers(77, 83),
    st.integers(0, 3),
)
REACHES = st.one_of(
    st.just(EVERYTHING),
    st.builds(lambda parts, others: _united(parts)._replace(others=others), st.lists(RANGES, max_size=4), st.booleans()),
)


def _united(parts: list[Ports]) -> Reach:
    found = NOTHING
    for part in parts:
        found |= Reach((part,))
    return found


@given(REACHES, REACHES)
def test_union_and_intersection_hold_for_each_port(one: Reach, other: Reach) -> None:
    for protocol, port in ASKED:
        assert (one | other).has(protocol, port) is (one.has(protocol, port) or other.has(protocol, port))
        assert (one & other).has(protocol, port) is (one.has(protocol, port) and other.has(protocol, port))
        assert (~one).has(protocol, port) is not one.has(protocol, port)


@given(REACHES, REACHES)
def test_the_same_ports_are_one_value(one: Reach, other: Reach) -> None:
    assert one | other == other | one
    assert one & other == other & one
    assert (one | one, one & one) == (one, one)
    assert ~~one == one
    for ports in (one | other, one & other, ~one):
        for before, after in itertools.pairwise(ports.ports):
            assert PROTOCOLS.index(before.protocol) < PROTOCOLS.index(after.protocol) or before.last + 1 < after.first


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (EVERYTHING, "everything"),
        (NOTHING, "nothing"),
        (Reach((Ports("TCP", 80, 80), Ports("TCP", 90, 99), Ports("UDP", 1, 65535))), "TCP 80, TCP 90-99, UDP"),
        (~Reach((Ports("TCP", 80, 80), Ports("SCTP", 1, 65535))), "everything but TCP 80, SCTP"),
        (Reach((), others=True), "everything but TCP, UDP, SCTP"),
    ],
)
def test_texts(found: Reach, text: str) -> None:
    assert str(found) == text
    assert (found.is_everything, found.is_nothing) == (text == "everything", text == "nothing")


def test_what_both_pods_let_through_is_reached() -> None:
    objects = [
        namespace("a"),
        pod("a/one", {"app": "one"}),
        pod("a/two", {"app": "two"}, "10.244.1.3", ports=[{"name": "http", "containerPort": 85}]),
        policy(
            "a/out",
            podSelector={"matchLabels": {"app": "one"}},
            policyTypes=["Egress"],
            egress=[{"ports": [{"port": 80, "endPort": 90}]}],
        ),
        policy(
            "a/in", podSelector={}, ingress=[{"ports": [{"port": 70, "endPort": 82}, {"port": "http"}, {"protocol": "UDP"}]}]
        ),
    ]
    index = index_of(objects)
    one, two = end(index, "a/one"), end(index, "a/two")
    assert str(reach(one, two, index)) == "TCP 80-82, TCP 85"
    assert str(reach(two, one, index)) == "TCP 70-82, UDP"
    assert reach(one, one, index) == EVERYTHING
