"""What the cluster says of its routes: the ConfigMap `kube-system/podplane-network`, for all nodes, changed while they run.

    data:
      backend: vxlan
      mtu: "1400"
      vxlan-vni: "1"
      vxlan-port: "4789"

What it leaves out is as the node's own settings say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from podplane.model.config import NetworkConfig
from podplane.routes.table import backend

NAMESPACE, NAME = "kube-system", "podplane-network"
PATH = f"{NAMESPACE}/{NAME}"
BACKEND, MTU, VNI, PORT = "backend", "mtu", "vxlan-vni", "vxlan-port"


class ClusterSettingsError(ValueError):
    """The ConfigMap is not as it should be; the text says which key, and why."""


def _name(text: str) -> str:
    return backend(text).name


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
            raise ValueError(f"{text!r} is no whole number from {lowest} to {highest}")
        return int(text)

    return read


KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    BACKEND: ("backend", _name),
    MTU: ("mtu", _whole(576, 65536)),
    VNI: ("vxlan_vni", _whole(1, (1 << 24) - 1)),
    PORT: ("vxlan_port", _whole(1, 65535)),
}
"""Key → the field of NetworkConfig, and how its text is read. A VNI has 24 bits (RFC 7348)."""


def applied(data: Mapping[str, str], settings: NetworkConfig) -> NetworkConfig:
    """The settings of a node with what the cluster says. ClusterSettingsError when that is not as it should be."""
    fields = {}
    for key, text in data.items():
        if key not in KEYS:
            raise ClusterSettingsError(f"data.{key} is not known: there are {', '.join(KEYS)}")
        field, read = KEYS[key]
        try:
            fields[field] = read(text.strip())
        except ValueError as error:
            raise ClusterSettingsError(f"data.{key}: {error}") from None
    return msgspec.structs.replace(settings, **fields)
