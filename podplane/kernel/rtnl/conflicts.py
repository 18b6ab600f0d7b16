"""Whose is an object that stands where one of podplane's is to be made, changed or deleted?

The same rules hold for the real kernel and for the fake:

- Creating what is there already: done when it is podplane's and as wanted, refused otherwise.
- Changing what somebody else replaced by an object of their own: refused. What is gone is made anew, except for links.
- What would lie on a link whose creation or change was refused so is refused, too, until that link is gone.
- Deleting what is gone, or what somebody else replaced by an object of their own: done, and theirs stays.

A link without podplane's mark, a route, rule, neighbour or proxy of another protocol, a qdisc of another handle is somebody
else's. Addresses and forwarding entries have no mark: they are podplane's when they are equal to the wanted one. A filter of
podplane's priority is podplane's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable

from podplane.kernel.errors import Exists, KernelError, Unsupported
from podplane.kernel.rtnl.constants import GRE_KINDS
from podplane.kernel.rtnl.matching import matches
from podplane.kernel.text import ip
from podplane.state.network import Link, Neighbour, Proxy, Qdisc, Route, Rule, Vxlan
from podplane.state.ownership import is_foreign
from podplane.state.value import Value

GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO, errno.ENETUNREACH})
"""A deletion that is refused so has nothing left to delete."""
LINK_FIELDS = ("link", "master", "to")
"""Where a value names links that it lies on."""
COMMANDS: dict[type[Value], str] = {
    Link: "ip link delete",
    Route: "ip route delete",
    Neighbour: "ip neigh delete",
    Proxy: "ip neigh delete proxy",
    Rule: "ip rule delete",
    Qdisc: "tc qdisc delete",
}


MODULES = {"bridge": "bridge", "veth": "veth", "vxlan": "vxlan", "gre": "ip_gre", "ip6gre": "ip6_gre"}
"""Kind of link → the module that brings it."""


def explained(value: Value, error: KernelError, links: Callable[[], Iterable[Link]] = tuple) -> KernelError:
    """The refusal of a value with what is known of it beyond what the kernel says; `links` reads those that there are."""
    if not isinstance(value, Link):
        return error
    if value.vxlan is not None and error.errno in (errno.EEXIST, errno.EADDRINUSE):
        return _taken(value.name, value.vxlan, error, links())
    if isinstance(error, Unsupported) and value.kind in MODULES:
        hint = f"this kernel lacks the module {MODULES[value.kind]}"
        return Unsupported(error.operation, error.reason, error.errno, hint)
    if isinstance(error, Exists) and value.kind in GRE_KINDS:
        hint = f"the kernel has one external device of type {value.kind} at most: remove the other one (ip -d link show type {value.kind})"
        return Exists(error.operation, error.reason, error.errno, hint)
    return error


def _taken(name: str, wanted: Vxlan, error: KernelError, links: Iterable[Link]) -> KernelError:
    """Who has the VNI (vxlan_newlink: EEXIST), or the port: a device with other settings, or some process (vxlan_open: EADDRINUSE)."""
    others = [one for one in links if one.vxlan is not None and one.vxlan.port == wanted.port and one.name != name]
    if error.errno == errno.EEXIST:
        others = [one for one in others if one.vxlan is not None and one.vxlan.vni == wanted.vni]
    if not others:
        return error if error.errno == errno.EEXIST else _port_taken(wanted, error)
    found = others[0]
    what = f"VNI {wanted.vni} at UDP port {wanted.port}" if error.errno == errno.EEXIST else f"UDP port {wanted.port}"
    hint = f"remove it (ip link delete {found.name}), or choose another one (vxlan-vni, vxlan-port)"
    return Exists(error.operation, f"{what} is taken by the link {found.name}, which podplane did not make", error.errno, hint)


def _port_taken(wanted: Vxlan, error: KernelError) -> KernelError:
    hint = f"see who has it (ss -ulnp 'sport = {wanted.port}'), or choose another one (vxlan-port)"
    return Exists(error.operation, f"UDP port {wanted.port} is taken by the socket of a process", error.errno, hint)


def creation_error(wanted: Value, present: Value) -> Exists | None:
    """Why `wanted` can't be created where `present` is; None when `present` does as well."""
    if is_foreign(wanted, present):
        return foreign_error(wanted, present)
    if matches(wanted, present):
        return None
    return Exists(f"create {ip.line(wanted)}", f"another one is there: {ip.line(present)}", errno.EEXIST)


class ForeignObject(Exists):
    """Somebody else's object is in the place of a wanted one."""


def blocking_link(value: Value, foreign: Collection[str]) -> str:
    """Which of these links, which are somebody else's and have names that ours should have, the value would lie on; "" for none."""
    for name in (getattr(value, field, "") for field in LINK_FIELDS):
        if name and name in foreign:
            return str(name)
    return ""


def foreign_error(wanted: Value, present: Value) -> ForeignObject:
    """The error that names somebody else's object in the place of a wanted one, and what to do about it."""
    command = COMMANDS.get(type(wanted), "delete it")
    hint = f"remove it ({command}), or let podplane use another name" if isinstance(wanted, Link) else f"remove it ({command})"
    what = f"link {wanted.name}" if isinstance(wanted, Link) else ip.line(wanted)
    return ForeignObject(f"create {what}", f"there is one that podplane did not make: {ip.line(present)}", errno.EEXIST, hint)
