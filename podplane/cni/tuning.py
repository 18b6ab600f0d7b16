"""What the plugin `tuning` (containernetworking-plugins), which may follow podplane's in a chain, has changed of a container's interface.

It says nothing of that in its result, but keeps what was there before in a file for each interface, from which its DEL restores it. Another
MTU than that of an ADD is a fault unless such a file has one; whether it is the right one is for `tuning` to check.

Source: containernetworking/plugins, plugins/meta/tuning (`dataDir`, by default /run/cni/tuning; CONTAINER_IFNAME.json).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

FOLDER = Path("/run/cni/tuning")
MOST_BYTES = 1 << 16


class _Before(msgspec.Struct):
    """What an interface was like."""

    mtu: int = 0


def sets_mtu(container_id: str, ifname: str) -> bool:
    """Did it change the MTU of this interface?"""
    try:
        with (FOLDER / f"{container_id}_{ifname}.json").open("rb") as file:
            return bool(msgspec.json.decode(file.read(MOST_BYTES), type=_Before).mtu)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return False
