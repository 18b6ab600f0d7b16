"""How the network of a machine is, in words, and what is in places that podplane writes to: taken before an agent's first start, and
after it was uninstalled.

Objects that the kernel makes by itself are left out, as are those that come and go with traffic (neighbours that were asked for).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import Namespace
from podplane.kernel.nft.foreign import table_names
from podplane.kernel.opener import KernelOpener
from podplane.kernel.sysctl import ROOT, SEPARATORS, read_here
from podplane.machine import places
from podplane.nodes.plan import SYSCTLS
from podplane.state.value import Value
from podplane.state.words import in_words

FILE = "before.json"
"""In the run folder."""
OWN = "node"
MOST = 10_000
"""So many objects of a kind are kept in words; of more, how many there are."""
OF_PODS = "mount"
"""A kind of which only what came is told: pods of before end, and podplane unmounts nothing."""
WENT = "- "
"""Before what went."""
PLACES = ("file", "mount", "socket", "zone")
"""Kinds that a snapshot of an earlier version does not have: nothing is known of them then."""
LEAVES = {
    "ipv4/conf": (
        "accept_redirects",
        "accept_source_route",
        "forwarding",
        "proxy_arp",
        "route_localnet",
        "rp_filter",
        "send_redirects",
    ),
    "ipv6/conf": (
        "accept_dad",
        "accept_ra",
        "accept_redirects",
        "accept_source_route",
        "disable_ipv6",
        "forwarding",
        "proxy_ndp",
    ),
    "ipv4/neigh": ("proxy_delay",),
    "ipv6/neigh": ("proxy_delay",),
}
"""Sysctls of each link that podplane sets, or that change with those."""


class Snapshot(msgspec.Struct, frozen=True):
    """Objects by kind, each in words; sysctls by name."""

    objects: dict[str, list[str]]
    sysctls: dict[str, str]

    def differences(self, later: Snapshot) -> Iterator[str]:
        """What is otherwise later: a line each, with `+` what came and with `-` what went."""
        for kind in sorted({*self.objects, *later.objects} - {one for one in PLACES if one not in self.objects}):
            before, after = set(self.objects.get(kind, ())), set(later.objects.get(kind, ()))
            if kind != OF_PODS:
                yield from (f"{WENT}{one}" for one in sorted(before - after))
            yield from (f"+ {one}" for one in sorted(after - before))
        for name in sorted(self.sysctls.keys() & later.sysctls.keys()):
            if self.sysctls[name] != later.sysctls[name]:
                yield f"~ sysctl {name}: {self.sysctls[name]}, now {later.sysctls[name]}"

    def counted(self) -> str:
        """How much that is."""
        kinds = (f"{len(self.objects[kind])} x {kind}" for kind in sorted(self.objects))
        return ", ".join((*kinds, f"{len(self.sysctls)} x sysctl"))


def take(namespace: Namespace, folders: Iterable[str] = ()) -> Snapshot:
    """The network as it is now, and what is in these folders (`machine.places`). KernelError or OSError when it can't be read."""
    kernel = Kernel(namespace, KernelOpener())
    objects: dict[str, list[str]] = {}
    try:
        kernel.attach(OWN, namespace)
        values = kernel.read_namespace(OWN).values()
        objects["socket"] = list(places.sockets(namespace, kernel))
    finally:
        kernel.close()
    objects["file"], objects["mount"] = list(places.files(folders)), list(places.mounts(folders))
    objects["zone"] = list(places.tracked(namespace))
    for value in values:
        own = msgspec.structs.replace(value, netns="")
        objects.setdefault(type(value).__name__.lower(), []).append(_described(own))
    objects["table"] = [f"nf_tables table {name}" for name in table_names(namespace)]
    return Snapshot({kind: _limited(found) for kind, found in objects.items()}, namespace.run(read_here, [*sysctl_names()]))


def _described(value: Value) -> str:
    """What it is, and all fields that say something."""
    fields = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
    said = ", ".join(f"{name} {found}" for name, found in fields.items() if found not in (None, "", 0, False, []))
    return f"{in_words(value.identity, value)} ({said})"


def _limited(found: list[str]) -> list[str]:
    return sorted(found) if len(found) <= MOST else [f"{len(found)} of them"]


def sysctl_names() -> Iterable[str]:
    """Those that are compared, of the links that there are now."""
    names = dict.fromkeys(SYSCTLS)
    for folder, leaves in LEAVES.items():
        try:
            links = sorted(os.listdir(f"{ROOT}net/{folder}"))
        except OSError:
            continue
        names |= dict.fromkeys(f"net/{folder}/{link}/{leaf}".translate(SEPARATORS) for link in links for leaf in leaves)
    return names


def load(folder: Path) -> Snapshot | None:
    """The one in this folder; None when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Snapshot)
    except (OSError, msgspec.MsgspecError):
        return None


def save(folder: Path, snapshot: Snapshot) -> None:
    """Write it; it is whole or not there. OSError when that can't be."""
    draft = folder / f"{FILE}.new"
    draft.touch(0o600)
    draft.write_bytes(msgspec.json.encode(snapshot))
    draft.rename(folder / FILE)
