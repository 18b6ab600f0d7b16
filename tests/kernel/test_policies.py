"""Policies on the real kernel: the same agents beside the fake one, generated policies, real packets."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podplane.model.policy import NetworkPolicy
from podplane.policy.match import Flow
from podplane.trace.evaluator import evaluate
from podplane.trace.memory import Memory
from podplane.trace.packet import Packet
from tests import policy_worlds
from tests.kernel.cluster import RealCluster
from tests.kernel.packets import Sockets
from tests.kernel.test_trace import agrees
from tests.policed import FakePoliced, Policed
from tests.unit.agent.rig import Object

pytestmark = pytest.mark.kernel


class RealPoliced(Policed, RealCluster):
    """On the real kernel."""

    def __init__(self) -> None:
        super().__init__((), ())
        self.begin()


def test_generated_policies_do_the_same_on_the_real_kernel() -> None:
    real, fake = RealPoliced(), FakePoliced()
    sockets = Sockets({name: place for name, place in real.namespaces.items() if name != "network"})
    memory, ends = Memory(), Counter[str]()

    @settings(
        max_examples=14,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(policy_worlds.policies, min_size=2, max_size=4),
        st.lists(policy_worlds.changes, max_size=3),
        st.lists(policy_worlds.flows(("tcp", "udp")), min_size=6, max_size=6),
    )
    def check(policies: list[NetworkPolicy], changes: list[Object], flows: list[tuple[str, Flow, Packet]]) -> None:
        nonlocal memory
        for cluster in (real, fake):
            cluster.reset()
            cluster.put(*policies, *changes)
        world = fake.opener.traffic.world()
        for sender, _, packet in flows:
            memory = agrees(sockets, world, sender, packet, memory)
            ends[type(evaluate(world, packet, sender).end).__name__] += 1

    check()
    assert ends["Delivered"] > 15 and ends["Dropped"] > 15, "both were tried"
