"""The cluster of `fake_cluster` with pods that policies know, on the fake kernel or a real one; policies and labels come and go."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.pause import Pause
from podplane.model.cluster_policy import ClusterNetworkPolicy, ClusterTier
from podplane.model.objects import Node
from podplane.model.pod_info import Labels, NamespaceInfo, PodInfo, Ports, SlimMetadata
from podplane.model.policy import (
    EVERYTHING,
    LabelSelector,
    NetworkPolicy,
    PodSelector,
    PolicyMetadata,
    PolicyRule,
    Requirement,
)
from podplane.trace.trace import Delivered, Dropped
from tests.fake_cluster import BOTH, Cluster, FakeCluster, pod_ip
from tests.unit.agent.rig import Object, cache_of

NAMESPACES = {(1, 1): "a", (1, 2): "b", (2, 1): "a", (2, 2): "b"}
"""Of the pods, by node and number."""
NO_LABELS: Mapping[str, str] = {}
NO_PORTS = Ports()
ALL_PODS = PodSelector(EVERYTHING)


def name_of(number: int, pod: int) -> str:
    return f"node{number}-pod{pod}"


def path_of(number: int, pod: int) -> str:
    return f"{NAMESPACES[number, pod]}/{name_of(number, pod)}"


def info(number: int, pod: int, labels: Mapping[str, str] = NO_LABELS, ports: Ports = NO_PORTS, **fields: object) -> PodInfo:
    """A pod as the API says it."""
    name = name_of(number, pod)
    metadata = SlimMetadata(name, NAMESPACES[number, pod], name, Labels(labels))
    ips = tuple(str(pod_ip(number, pod, version)) for version in BOTH)
    made = PodInfo(metadata, f"node{number}", ips, "Running", ports=ports)
    return msgspec.structs.replace(made, **fields)


def namespace(name: str, labels: Mapping[str, str] = NO_LABELS) -> NamespaceInfo:
    return NamespaceInfo(SlimMetadata(name, labels=Labels(labels)))


def select(**labels: str) -> LabelSelector:
    return LabelSelector.of(Requirement(key, "In", (value,)) for key, value in labels.items())


def labelled(node: Node, **labels: str) -> Node:
    return msgspec.structs.replace(node, metadata=msgspec.structs.replace(node.metadata, labels=labels))


class Policed(Cluster):
    """Agents that are told what comes and goes."""

    def begin(self) -> None:
        """Tell agents of changes from now on, and of the pods and namespaces that there are."""
        for number, caches in self.caches.items():
            caches.subscribe(functools.partial(self._changed, number))
        self.reset()

    def reset(self) -> None:
        """No policies, no labels but those of the namespaces, team=a and team=b, and of the nodes: role=first and role=second."""
        caches = self.caches[1]
        self.remove(*caches.policies.objects.values(), *caches.cluster_policies.objects.values())
        self.put(*(labelled(node, role=role) for node, role in zip(self.nodes.values(), ("first", "second"), strict=True)))
        self.put(namespace("a", {"team": "a"}), namespace("b", {"team": "b"}), *(info(*place) for place in NAMESPACES))

    def _changed(self, number: int, kind: Any, old: Any, new: Any) -> None:
        self.agents[number].changed(kind, old, new)

    def namespace_of(self, number: int, pod: int) -> str:
        return NAMESPACES[number, pod]

    def put(self, *objects: Object) -> None:
        """These came, or changed; it is in the kernel when this returns."""
        for caches in self.caches.values():
            for one in objects:
                cache_of(caches, one).set(one)
        self.settle()

    def remove(self, *objects: Object) -> None:
        """These went."""
        for caches in self.caches.values():
            for one in objects:
                cache_of(caches, one).remove(one.metadata.path)
        self.settle()

    def kill(self, number: int, *objects: Object) -> None:
        """The agent of a node is killed while it sends what these change, and another one begins."""
        for one in objects:
            cache_of(self.caches[number], one).set(one)
        agent = self.agents[number]

        async def begin_to_send() -> None:
            await agent.planner.replan(Pause())
            agent.writer.wake()
            await asyncio.sleep(0)
            for part in (agent.watcher, agent.denied, agent.planner):
                part.close()

        asyncio.run(begin_to_send())
        self._begin_another(number)
        self.put(*objects)

    def restart(self, number: int) -> int:
        """End the agent of a node and begin with another one; how much that wrote."""
        asyncio.run(self.agents[number].stop())
        return self._begin_another(number)

    def _begin_another(self, number: int) -> int:
        former = self.agents[number]
        attached = former.network.attached
        door: Any = former._kernel
        agent = self.agents[number] = Agent(f"node{number}", self.settings, door, self.caches[number], clock=lambda: 0.0)
        asyncio.run(agent.start(attached))
        return agent.writer.operations_applied

    def settle(self) -> None:
        """Plan what is dirty, and have the kernel take it; it refuses nothing."""
        for agent in self.agents.values():
            asyncio.run(_settled(agent))
            assert not agent.ledger.refused, [str(one.error) for one in agent.ledger.refused.values()]
            assert not agent.planner.blocked, agent.planner.blocked


class FakePoliced(Policed, FakeCluster):
    """On the fake kernel."""

    _port = 20000

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def passes(
        self, sender: tuple[int, int], receiver: tuple[int, int], version: int = 4, port: int = 80, **more: object
    ) -> bool:
        """Does the first packet of a new connection between two pods arrive, and its answer?"""
        self._port += 1  # a connection that was let pass once goes on
        trace = self.from_pod(*sender, pod_ip(*receiver, version), port, source_port=self._port, **more)
        if isinstance(trace.end, Dropped):
            return False
        assert isinstance(trace.end, Delivered), trace
        assert isinstance(self.reply(trace).end, Delivered), "answers pass"
        return True


async def _settled(agent: Agent) -> None:
    await agent.reconcile()
    await agent.idle()


def cluster_policy(
    name: str,
    tier: ClusterTier = "Admin",
    priority: int = 10,
    subjects: PodSelector = ALL_PODS,
    ingress: Sequence[PolicyRule] = (),
    egress: Sequence[PolicyRule] = (),
) -> ClusterNetworkPolicy:
    """A ClusterNetworkPolicy."""
    return ClusterNetworkPolicy(PolicyMetadata(name), tier, priority, subjects, tuple(ingress), tuple(egress))


def policy(
    name: str,
    pods: LabelSelector,
    ingress: Sequence[PolicyRule] | None = None,
    egress: Sequence[PolicyRule] | None = None,
    namespace: str = "a",
) -> NetworkPolicy:
    """A NetworkPolicy."""
    sides = (None if rules is None else tuple(rules) for rules in (ingress, egress))
    return NetworkPolicy(PolicyMetadata(name, namespace, name), pods, *sides)
