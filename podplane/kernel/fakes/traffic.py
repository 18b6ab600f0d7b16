"""Packets in the fake kernel: where one goes over what its namespaces hold now (`podplane.trace`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from podplane.kernel.fakes.objects import Objects
from podplane.state.network import Sysctl
from podplane.state.value import Value
from podplane.trace.evaluator import evaluate, first, reply
from podplane.trace.memory import Memory
from podplane.trace.packet import Packet
from podplane.trace.trace import Trace
from podplane.trace.world import End, World


@dataclass(slots=True)
class Traffic:
    """All namespaces of one fake kernel by name, the networks that join them, and what they remember of packets."""

    namespaces: dict[str, Objects] = field(default_factory=dict)
    segments: list[tuple[End, ...]] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    def world(self) -> World:
        """The namespaces as they are now."""
        names = {id(objects): name for name, objects in self.namespaces.items()}
        cables = [
            (End(name, link), End(names[id(there)], far))
            for name, objects in self.namespaces.items()
            for link, (there, far) in objects.peers.items()
        ]
        return World({name: list(_values(objects)) for name, objects in self.namespaces.items()}, cables, self.segments)

    def send(self, netns: str, packet: Packet, choose: Callable[[int], int] = first) -> Trace:
        """Send a packet from a namespace, or into it by `packet.link`."""
        trace = evaluate(self.world(), packet, netns, self.memory, choose)
        self.memory = trace.memory
        return trace

    def reply(self, trace: Trace) -> Trace:
        """The answer to a packet that was delivered."""
        answer = reply(self.world(), trace)
        self.memory = answer.memory
        return answer


def _values(objects: Objects) -> Iterator[Value]:
    yield from objects.network.values()
    yield from objects.nft.values()
    for name, value in objects.sysctls.items():
        yield Sysctl(name=name, value=value)
