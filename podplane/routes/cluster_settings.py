"""What the cluster says of its routes: the ConfigMap `kube-system/podplane-network`, for all nodes, changed while they run.

    data:
      backend: host-gw
      cross-subnet: vxlan
      mtu: "1400"
      vxlan-vni: "1"
      vxlan-port: "4789"
      tunnel-offload: auto

What it leaves out is as the node's own settings say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from podplane.model.config import NetworkConfig
from podplane.routes import offload, table
from podplane.routes.cross_subnet import TUNNELS

NAMESPACE, NAME = "kube-system", "podplane-network"
PATH = f"{NAMESPACE}/{NAME}"
BACKEND, CROSS_SUBNET, MTU, VNI, PORT, OFFLOAD = "backend", "cross-subnet", "mtu", "vxlan-vni", "vxlan-port", "tunnel-offload"


class ClusterSettingsError(ValueError):
    """The ConfigMap is not as it should be; the text says which key, and why."""


def _name(text: str) -> str:
    return table.chosen(text).name


def _tunnel(text: str) -> str:
    if text and text not in TUNNELS:
        raise ValueError(f"there is no tunnel {text!r}: choose one of {', '.join(TUNNELS)}")
    return text


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
            raise ValueError(f"{text!r} is no whole number from {lowest} to {highest}")
        return int(text)

    return read


KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    BACKEND: ("backend", _name),
    CROSS_SUBNET: ("cross_subnet", _tunnel),
    MTU: ("mtu", _whole(576, 65536)),
    VNI: ("vxlan_vni", _whole(1, (1 << 24) - 1)),
    PORT: ("vxlan_port", _whole(1, 65535)),
    OFFLOAD: ("tunnel_offload", offload.choice),
}
"""Key → the field of NetworkConfig, and how its text is read. A VNI has 24 bits (RFC 7348)."""


def applied(data: Mapping[str, str], settings: NetworkConfig) -> NetworkConfig:
    """The settings of a node with what the cluster says; their backend is that of the table for the backend and the tunnel that are asked
    for. ClusterSettingsError when that is not as it should be."""
    fields: dict[str, Any] = {}
    for key, text in data.items():
        if key not in KEYS:
            raise ClusterSettingsError(f"data.{key} is not known: there are {', '.join(KEYS)}")
        field, read = KEYS[key]
        try:
            fields[field] = read(text.strip())
        except ValueError as error:
            raise ClusterSettingsError(f"data.{key}: {error}") from None
    if BACKEND in data and CROSS_SUBNET not in data:
        fields["cross_subnet"] = ""  # the node's own one is of the node's own backend
    wanted = msgspec.structs.replace(settings, **fields)
    try:
        return msgspec.structs.replace(wanted, backend=table.chosen(wanted.backend, wanted.cross_subnet).name)
    except ValueError as error:
        raise ClusterSettingsError(f"data.{CROSS_SUBNET}: {error}") from None
