"""The network that a machine is migrated from, as files and the kernel tell: that of the reference plugins, as Flannel uses them.

    /var/lib/cni/networks/NETWORK/IP                  host-local gave this address to a container: its id, and the name of its interface
    /var/lib/cni/results/NETWORK-CONTAINER-INTERFACE  what libcni remembers of that ADD, with the path of the network namespace

Nothing of it is written. An engine that has been told of podplane calls host-local no more, so its files stay when pods end: an address
is free when the namespace of its container is gone. Where that is not known, it is when nothing is on the bridge any more.

Sources: plugins/ipam/host-local/backend/disk of containernetworking/plugins, libcni/api.go of containernetworking/cni (cachedInfo).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.model import plain_files
from podplane.model.answers import FormerNetwork
from podplane.model.pod_info import PodInfo
from podplane.state.network import Link
from podplane.state.value import Value

log = logging.getLogger(__name__)
FOLDER = Path("/var/lib/cni")
NETWORKS, RESULTS = "networks", "results"
LISTED = 100
"""So many pods are named."""


class Former:
    """What is left of it. `ports` are those of its bridge, as they were seen last; None while the machine has no such bridge."""

    def __init__(self, bridge: str, folder: Path = FOLDER) -> None:
        """`bridge` "": the machine is not migrated."""
        self.bridge = bridge
        self.ports: int | None = None
        self._folder = folder
        self._namespaces: Mapping[str, str] = {}
        """Where namespaces are, by the file of an address, as it was written then."""

    def look(self, values: Iterable[Value]) -> None:
        """At what the kernel has."""
        links = [one for one in values if isinstance(one, Link)]
        is_there = any(one.name == self.bridge and one.kind == "bridge" for one in links)
        self.ports = sum(one.master == self.bridge for one in links) if is_there else None

    async def given(self) -> frozenset[str]:
        """The addresses of containers that are still there. Files are read in a thread: hundreds, where there are as many pods."""
        return await asyncio.to_thread(self.addresses) if self.bridge else frozenset()

    def addresses(self) -> frozenset[str]:
        """The same, here. What the files say of namespaces is read once for each file of an address."""
        before, now, found = self._namespaces, dict[str, str](), set[str]()
        for network, one in self._files():
            try:
                written = one.stat()
                key = f"{one.path} {written.st_ino} {written.st_mtime_ns}"
                path = before.get(key) or self._namespace_of(network, Path(one.path))
            except (OSError, ValueError):  # it is gone, or none of host-local's
                continue
            if path:  # libcni may still be about to write where it is
                now[key] = path
            if os.path.exists(path) if path else self.ports:
                found.add(one.name)
        self._namespaces = now
        return frozenset(found)

    def _files(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Of addresses, each with its network; none where there never was one, or it is not to be seen from here."""
        with contextlib.suppress(OSError):
            for network in os.scandir(self._folder / NETWORKS):
                with contextlib.suppress(OSError):
                    yield from ((network.name, one) for one in os.scandir(network))

    def _namespace_of(self, network: str, file: Path) -> str:
        """Of the container that has the address of this file. OSError, ValueError where that is none."""
        container, _, interface = plain_files.read(file).decode().replace("\r\n", "\n").partition("\n")
        return self._namespace(f"{network}-{container.strip()}-{interface.strip() or 'eth0'}")

    def _namespace(self, result: str) -> str:
        """Where the network namespace is that an ADD was for; "" where nothing says so."""
        try:
            found: Any = msgspec.json.decode(plain_files.read(self._folder / RESULTS / result))
            named = (one.get("sandbox") for one in found["result"]["interfaces"])
            return str(found.get("netns") or next(filter(None, named), ""))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return ""

    def report(self, pods: Iterable[PodInfo], node: str, is_attached: Callable[[str], bool]) -> FormerNetwork | None:
        """What is left of it: `pods` are those of the API, `is_attached` knows the uids of those that podplane attached."""
        if self.ports is None:
            return None
        left = [one for one in pods if has_network(one, node) and not is_attached(one.metadata.uid)]
        return FormerNetwork(self.bridge, self.ports, sorted(one.metadata.path for one in left)[:LISTED])


def has_network(pod: PodInfo, node: str) -> bool:
    """Is it of this node, with a network of its own?"""
    return pod.node == node and bool(pod.ips) and not pod.host_network and not pod.has_ended
