"""The power of a lab's machines: one that loses it is gone at once, with its network namespace and its pods; one that gets it again boots.

    off    agent and heartbeat, which tell nobody; the cable, at the switch's end; processes of pods; sockets of the name server; namespaces
    boot   namespaces, cable, the machine's network; the Node learns what its machine is now; agent; the pods that the API has for the node

As on a real machine nobody detaches a pod, and the API hears nothing until heartbeats are missed. A machine may boot with another network
card (MAC), or with another address.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from podplane.ipam.plan import Plan
from podplane.lab.fabric import Fabric, Machine
from podplane.lab.faults.arguments import Boot, FaultError
from podplane.lab.underlay import Place
from podplane.nameserver.keeper import NameServer
from podplane.runtime.kubelet import Kubelet
from podplane.runtime.node import PodSandbox
from podplane.state.value import IPAddress

LOCAL = 0x02
"""The bit of a MAC's first byte that says that no maker gave it, and the lowest one, which is 0, that it is one station's (IEEE 802)."""


class Node(Protocol):
    """A node of the lab, as far as its power goes."""

    @property
    def name(self) -> str:
        """Of the node."""

    @property
    def kubelet(self) -> Kubelet:
        """The present one."""

    async def lose_power(self) -> None:
        """Agent and heartbeat end; nothing of the node reaches the API."""


class Power(msgspec.Struct, eq=False):
    """All machines of a lab; its methods run on one event loop.

    `sandboxes` are those of the machines by name; `register` says to the API what a machine is now, and gives the part of the Node's status
    that says so; `begin` starts agent and kubelet on it. `chosen` are the places of those without power, where that was chosen.
    """

    plan: Plan
    fabric: Fabric
    name_server: NameServer
    sandboxes: dict[str, PodSandbox]
    make_sandbox: Callable[[], Awaitable[PodSandbox]]
    register: Callable[[Place], Awaitable[Mapping[str, Any]]]
    begin: Callable[[str, Machine, Mapping[str, Any]], Awaitable[None]]
    chosen: dict[str, Place] = msgspec.field(default_factory=dict)

    def choose(self, name: str, wanted: Boot) -> None:
        """Where a machine boots next, which no other gets meanwhile. FaultError when no address is free."""
        self.chosen.pop(name, None)
        self.chosen[name] = self._place(self.fabric.places[name], wanted)

    async def off(self, node: Node) -> None:
        """Now; idempotent. LabError when the kernel refuses."""
        await node.lose_power()  # first: its agent would see the others go
        await asyncio.to_thread(self.fabric.unplug, node.name)
        await node.kubelet.lose_power()
        self.name_server.remove(node.name)
        self.sandboxes[node.name].close()
        self.fabric.nodes[node.name].close()

    async def boot(self, node: Node) -> Place:
        """Boot; where it is now. LabError, and what `make_sandbox`, `register` and `begin` raise."""
        place = self.chosen.get(node.name, self.fabric.places[node.name])
        sandbox = self.sandboxes[node.name] = await self.make_sandbox()
        machine = await asyncio.to_thread(self.fabric.plug, node.name, sandbox.namespace, place)
        await self.begin(node.name, machine, await self.register(place))
        self.chosen.pop(node.name, None)
        return place

    def _place(self, place: Place, wanted: Boot) -> Place:
        if wanted.new_mac:
            place = msgspec.structs.replace(place, mac=_new_mac())
        if wanted.new_ip:
            place = msgspec.structs.replace(place, ips=self._free_ips(place))
        return place

    def _free_ips(self, place: Place) -> tuple[IPAddress, ...]:
        """The addresses of a machine that there is not, in the same subnet."""
        taken = {ip for other in (*self.fabric.places.values(), *self.chosen.values()) for ip in other.ips}
        subnet = self.plan.subnet_of(place.number)
        numbers = range(len(self.fabric.places) + 1, self.plan.node_capacity + 1)
        found = (self.plan.node_ips(number) for number in numbers if self.plan.subnet_of(number) == subnet)
        free = next((ips for ips in found if taken.isdisjoint(ips)), None)
        if free is None:
            raise FaultError("no other address is free in the network of the nodes")
        return free


def _new_mac() -> str:
    first, *rest = secrets.token_bytes(6)
    return ":".join(f"{byte:02x}" for byte in (first & ~1 | LOCAL, *rest))
