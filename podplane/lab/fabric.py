"""The lab's namespaces and cables: underlay, outside, and a namespace for each node with its uplink.

Everything here stands for hardware and machines; it is made once, through the same kernel door as the
agents use, and never reconciled.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from podplane.ipam.plan import Plan
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.lab import second_nic, underlay
from podplane.lab.errors import LabError
from podplane.lab.faults.cable import Cable
from podplane.lab.manifests import node_name
from podplane.lab.underlay import UPLINK, Place
from podplane.state.network import Link
from podplane.state.operations import Operation, Report, diff
from podplane.state.value import Value, fragment


class Machine:
    """One namespace that stands for a machine, and the door to its kernel state. `uplink` and `second` are its own configuration of its
    network interfaces."""

    def __init__(
        self, namespace: Namespace, opener: KernelOpener, uplink: Sequence[Value] = (), second: Sequence[Value] = ()
    ) -> None:
        self.namespace = namespace
        self._opener = opener
        self.uplink = uplink
        self.second = second
        self.kernel = Kernel(self.namespace, opener)

    def open_kernel(self) -> Kernel:
        """Another door, which knows nothing of what went through the former one."""
        self.kernel.close()
        self.kernel = Kernel(self.namespace, self._opener)
        return self.kernel

    def configure_uplink(self) -> None:
        """Apply the machine's own network configuration, as when its uplink comes up; objects that exist stay as they are."""
        self._configure(self.uplink)

    def configure_second(self) -> None:
        """Likewise that of its second interface."""
        self._configure(self.second)

    def _configure(self, values: Sequence[Value]) -> None:
        kernel = Kernel(self.namespace, self._opener)
        try:
            kernel.apply(diff({}, fragment(values)))
        finally:
            kernel.close()

    def is_uplink_up(self) -> bool:
        """Is the uplink there, and set up? Blocks."""
        kernel = Kernel(self.namespace, self._opener)
        try:
            kernel.attach(UPLINK, self.namespace)
            link = kernel.read_namespace(UPLINK).get(Link(netns=UPLINK, name=UPLINK).identity)
        finally:
            kernel.close()
        return isinstance(link, Link) and link.up

    def close(self) -> None:
        """Let go of the namespace and its sockets."""
        self.kernel.close()
        self.namespace.close()


class Fabric:
    """The underlay, the host outside, and machines, cabled. Pods on the host network have `outside` and `nodes` for theirs.

    `asks`: machines find each other by ARP and neighbour discovery.
    """

    def __init__(
        self, plan: Plan, workers: Workers, outside: Namespace, nodes: Sequence[Namespace], *, asks: bool = False
    ) -> None:
        self._opener, self._asks = KernelOpener(protects_tables=True), asks
        self._plan = plan
        self._changing = threading.Lock()
        self.places = {node_name(n): underlay.usual_place(plan, n) for n in range(1, len(nodes) + 1)}
        self.underlay = Machine(NetworkNamespace.create(workers), self._opener)
        self.outside = outside
        self.nodes = {name: self._machine(name, one) for name, one in zip(self.places, nodes, strict=True)}
        self._cable(plan)

    def _machine(self, name: str, namespace: Namespace) -> Machine:
        place = self.places[name]
        uplink, second = underlay.uplink(self._plan, place, asks=self._asks), second_nic.machine(self._plan, place.number)
        return Machine(namespace, self._opener, uplink, second)

    def _cable(self, plan: Plan) -> None:
        switch = self.underlay.kernel
        switch.attach(underlay.OUTSIDE, self.outside)
        ports: list[Value] = []
        for name, machine in self.nodes.items():
            _build(machine.kernel, underlay.boot_sysctls())
            switch.attach(name, machine.namespace)
            ports += self._ports(name)
        _build(switch, [*underlay.switch(plan), *second_nic.switch(plan), *ports])
        for machine in self.nodes.values():
            _build(machine.kernel, [*machine.uplink, *machine.second])

    def _ports(self, name: str) -> list[Value]:
        """All cables of a machine."""
        place = self.places[name]
        return [*underlay.port(self._plan, place, name), *second_nic.port(self._plan, place.number, name)]

    def cable(self, name: str) -> Cable:
        """The cable of a node."""
        number, plan = self.places[name].number, self._plan
        gateways = tuple(ip for subnet in range(plan.subnets) for ip in plan.underlay_gateways(subnet)) + plan.second_gateways()
        gate = underlay.switch_name(plan.subnet_of(number))
        networks, second = (*plan.links(), *plan.second_networks), second_nic.port_name(number) if plan.second else ""
        return Cable(name, self.underlay.namespace, underlay.port_name(number), gate, networks, gateways, second)

    def unplug(self, name: str) -> None:
        """Take a machine from its switch, which forgets it; one that is not there stays away. LabError when that can't be."""
        with self._changing:
            operations = [Operation(value, None) for value in self._ports(name)]
            gone = self.underlay.kernel.apply(operations)
        if gone.failed:
            raise LabError(f"the uplink of {name} can't be deleted: {gone.failed[0].error}")

    def plug(self, name: str, namespace: Namespace, place: Place) -> Machine:
        """Have a new machine in this namespace in the place of the former one, at its switch. LabError when that can't be."""
        self.places[name] = place
        machine = self.nodes[name] = self._machine(name, namespace)
        _build(machine.kernel, underlay.boot_sysctls())
        with self._changing:
            self.underlay.kernel.attach(name, namespace)
            _build(self.underlay.kernel, self._ports(name))
        _build(machine.kernel, [*machine.uplink, *machine.second])
        return machine

    def remake_uplink(self, name: str) -> None:
        """Delete a node's uplink and its port at the switch, and make them again; the machine configures it as at its start.

        LabError when that can't be.
        """
        cable, *_ = underlay.port(self._plan, self.places[name], name)
        with self._changing:
            gone = self.underlay.kernel.apply([Operation(cable, None)])
            if gone.failed:
                raise LabError(f"the uplink of {name} can't be deleted: {gone.failed[0].error}")
            _build(self.underlay.kernel, [cable])
        self.nodes[name].configure_uplink()

    def close(self) -> None:
        """Let go of everything; the kernel removes what was in the namespaces."""
        for machine in (self.underlay, *self.nodes.values()):
            machine.close()
        self.outside.close()


def _build(kernel: Kernel, values: Sequence[Value]) -> Report:
    report = kernel.apply(diff({}, fragment(values)))
    if report.failed:
        raise LabError(f"the underlay can't be built: {report.failed[0].error}")
    return report
