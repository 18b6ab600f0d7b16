"""What the spec of a pod asks of its node."""

from __future__ import annotations

from podplane.model.pod import Container, Pod
from podplane.model.view import HostPort
from podplane.runtime.status import EPHEMERAL, INIT, MAIN, SIDECAR


def roles_of(pod: Pod) -> list[tuple[Container, str]]:
    """All containers in the order in which they start, with what they are to the pod."""
    inits = [(spec, SIDECAR if spec.restart_policy == "Always" else INIT) for spec in pod.spec.init_containers]
    mains = [(spec, MAIN) for spec in pod.spec.containers]
    return inits + mains + [(spec, EPHEMERAL) for spec in pod.spec.ephemeral_containers]


def host_ports(pod: Pod) -> tuple[HostPort, ...]:
    """The ports of the node that lead to the pod's containers."""
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return tuple(
        HostPort(port.host_port, port.container_port, port.protocol, port.host_ip)
        for container in containers
        for port in container.ports
        if port.host_port
    )
