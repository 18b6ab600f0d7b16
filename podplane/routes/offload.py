"""Whether a tunnel leaves checksums and segments of what it carries to what is below it, or makes them in software. Pure.

It leaves them, which is much quicker (docs/routes.md), but where a card or a kernel is known to make them wrong. `FAULTS` names those. A
tunnel of the node's own is switched, never the uplink, which is not podplane's: what comes out of a tunnel without offload is to the
uplink a packet as any other, of which no inner checksum is asked (iptunnel_handle_offloads).

A kernel is known by its release alone. Distributions take over both faults and fixes without another one (RHEL 8.3's 4.18 has vmxnet3's of
5.8), so a range begins with the oldest known to have a fault; who has the fix already may say `enabled`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from podplane.model.config import NetworkConfig

AUTO, ENABLED, DISABLED = "auto", "enabled", "disabled"
Release = tuple[int, int, int]
RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
VMXNET3_PORTS = frozenset((4789, 8472))
"""UDP ports of which vmxnet3 makes inner checksums of VXLAN (vmxnet3_features_check)."""


class Fault(NamedTuple):
    """Offload of tunnels that is wrong: with this driver of the uplink, on kernels from one release up to another (without it; None: all
    that follow), for tunnels of which `concerns(type, UDP port)`. `why` says what, and where that is said."""

    driver: str
    since: Release
    until: Release | None
    concerns: Callable[[str, int], bool]
    why: str

    def is_in(self, kernel: Release) -> bool:
        """Has this kernel got it?"""
        return self.since <= kernel and (self.until is None or kernel < self.until)


def _is_usual(kind: str, port: int) -> bool:
    return kind == "vxlan" and port in VMXNET3_PORTS


def _is_unusual(kind: str, port: int) -> bool:
    return kind == "vxlan" and port not in VMXNET3_PORTS


UNUSUAL = "vmxnet3 makes wrong checksums of VXLAN at other UDP ports than 4789 and 8472 (Linux dacce2be3312 to b22580233d47)"
DROPPED = (
    "some versions of ESXi drop what vmxnet3 makes of VXLAN (projectcalico/calico#4727, openshift/machine-config-operator#2495)"
)
FAULTS: tuple[Fault, ...] = (
    Fault("vmxnet3", (4, 18, 0), (5, 10, 53), _is_unusual, UNUSUAL),
    Fault("vmxnet3", (5, 11, 0), (5, 13, 5), _is_unusual, UNUSUAL),
    Fault("vmxnet3", (4, 18, 0), None, _is_usual, DROPPED),
)


def choice(text: str) -> str:
    """What a setting may say. ValueError for what it may not."""
    if text not in (AUTO, ENABLED, DISABLED):
        raise ValueError(f"there is no {text!r}: choose one of {AUTO}, {ENABLED}, {DISABLED}")
    return text


def why_not(kind: str, settings: NetworkConfig) -> str:
    """Why tunnels of this type (IFLA_INFO_KIND) make checksums and segments in software; "" where they do not."""
    if settings.tunnel_offload == DISABLED:
        return "the settings say so"
    if settings.tunnel_offload == ENABLED:
        return ""
    kernel = _release(settings.kernel)
    found = next((one for one in FAULTS if _applies(one, kernel, kind, settings)), None)
    return f"{found.why}; where that is not so, `tunnel-offload: {ENABLED}` has it on" if found is not None else ""


def _applies(fault: Fault, kernel: Release | None, kind: str, settings: NetworkConfig) -> bool:
    is_here = kernel is not None and fault.driver == settings.uplink_driver and fault.is_in(kernel)
    return is_here and fault.concerns(kind, settings.vxlan_port)


def _release(text: str) -> Release | None:
    """The numbers with which the release of a kernel begins ("5.10.0-30-amd64"); None where it does not begin so."""
    found = RELEASE.match(text)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))
