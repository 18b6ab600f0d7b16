"""The shapers of a pod: values by limits, within what the kernel can say, whatever is asked for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.bandwidth import LEAST, MOST
from podplane.model.view import Bandwidth, View
from podplane.pods import bandwidth, plan
from podplane.pods.bandwidth import NO_OPINION, shaper
from podplane.state.network import Link, Qdisc, Redirect, Sysctl
from podplane.state.value import Value
from tests.plans import FAMILIES, config, node, sandbox


def added(**limits: int) -> list[Value]:
    """What a pod has beside what it has without limits."""
    versions = FAMILIES["dual"]
    view, own = View("node1", {"node1": node(1, versions)}), sandbox(1, versions)
    limited = plan.plan(msgspec.structs.replace(own, bandwidth=Bandwidth(**limits)), view, config(versions))
    return [value for identity, value in limited.items() if identity not in plan.plan(own, view, config(versions))]


def test_what_comes_to_a_pod_is_shaped_at_the_nodes_end_of_its_link() -> None:
    own = sandbox(1, (4,))
    veth = plan.veth_name(own.container_id, "eth0")
    assert added(ingress_rate=8_000_000) == [Qdisc(link=veth, rate=1_000_000, burst=10_000, limit=42_768)]


def test_what_a_pod_sends_makes_a_turn_through_a_link_of_its_own() -> None:
    veth = plan.veth_name(sandbox(1, (4,)).container_id, "eth0")
    link, sysctl, qdisc, redirect = added(egress_rate=8_000_000)
    assert isinstance(link, Link) and (link.name, link.kind, link.mtu) == (f"{veth}i", "ifb", 1500)
    assert link.alias.startswith("podplane pod/") and len(link.name) <= 15
    assert sysctl == Sysctl(name=f"net.ipv6.conf.{veth}i.disable_ipv6", value="1", link=f"{veth}i")
    assert qdisc == Qdisc(link=f"{veth}i", rate=1_000_000, burst=10_000, limit=42_768)
    assert redirect == Redirect(link=veth, to=f"{veth}i")


def test_no_limits_cost_nothing() -> None:
    assert added() == []


@given(st.integers(LEAST, MOST), st.integers(0, 1 << 62), st.integers(576, 65535))
def test_any_limit_can_be_said_to_the_kernel_and_lets_the_largest_frame_pass(rate: int, burst: int, mtu: int) -> None:
    one = shaper("x", rate, burst, mtu)
    assert one.rate == rate // 8 > 0
    assert (mtu + 18 <= one.burst <= 0xFFFF_FFFF and one.burst < one.limit) or one.limit == 0xFFFF_FFFF
    assert one.limit <= 0xFFFF_FFFF
    assert one.burst == mtu + 18 or one.burst / one.rate <= bandwidth.LONGEST_BURST_SECONDS


BURSTS = {
    800_000: 100_000,
    8: 1518,
    0: 12_500,
    NO_OPINION: 12_500,
    2**32 - 1: 12_500,
    10**9: 125_000_000,
    NO_OPINION - 1: 250_000_000,
}


@pytest.mark.parametrize(("burst", "bytes_"), BURSTS.items())
def test_a_burst_is_as_asked_for_within_a_frame_and_200_s_and_that_of_engines_is_none(burst: int, bytes_: int) -> None:
    assert shaper("x", 10_000_000, burst, 1500).burst == bytes_
