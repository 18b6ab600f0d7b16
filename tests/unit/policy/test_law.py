"""What nodes do with a packet is what the verdict says, whatever came and went before."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.policy import NetworkPolicy
from podplane.policy import compiling
from podplane.policy.match import Flow
from podplane.trace.evaluator import evaluate
from podplane.trace.packet import Packet
from podplane.trace.trace import Delivered, Dropped
from tests import policy_worlds
from tests.policed import FakePoliced
from tests.unit.agent.rig import Object

STEPS = st.tuples(
    st.lists(st.tuples(policy_worlds.changes, st.booleans()), min_size=1, max_size=3),
    st.lists(policy_worlds.flows(), min_size=8, max_size=8),
)
Steps = list[tuple[list[tuple[Object, bool]], list[tuple[str, Flow, Packet]]]]


@pytest.mark.parametrize("together", [compiling.TOGETHER, 0])
def test_packets_pass_when_the_verdict_allows_them(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all policies of a pod that can be one set are."""
    monkeypatch.setattr(compiling, "TOGETHER", together)
    cluster = FakePoliced()

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(STEPS, min_size=1, max_size=3))
    def check(steps: Steps) -> None:
        cluster.reset()
        for changes, flows in steps:
            for one, goes in changes:
                if goes and isinstance(one, NetworkPolicy | ClusterNetworkPolicy):
                    cluster.remove(one)
                else:
                    cluster.put(one)
            world = cluster.opener.traffic.world()
            for sender, flow, packet in flows:
                trace = evaluate(world, packet, sender)
                note(str(trace))
                assert isinstance(trace.end, Delivered | Dropped), trace
                assert isinstance(trace.end, Delivered) == policy_worlds.allowed(flow, cluster), flow

    check()
