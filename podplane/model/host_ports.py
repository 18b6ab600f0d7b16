"""Host ports that no node can have, whoever asks for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from podplane.model.view import HostPort


def why_refused(ports: Iterable[HostPort]) -> str:
    """Why no pod can have all of these ports; "" when one can."""
    led = dict[tuple[str, int, str], int]()
    for port in ports:
        key = (port.host_ip, port.host_port, port.protocol.lower())
        if led.setdefault(key, port.container_port) != port.container_port:
            return f"host port {port.host_port}/{key[2]} is to lead to two ports of the container"
        try:
            ipaddress.ip_address(port.host_ip or "0.0.0.0")
        except ValueError:
            return f"hostIP {port.host_ip!r} is no IP address"
    return ""
