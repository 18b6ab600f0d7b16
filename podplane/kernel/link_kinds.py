"""Kinds of links that a kernel may lack, and the modules that bring them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import NoReturn

from podplane.kernel import syscalls
from podplane.kernel.namespace import Namespace
from podplane.kernel.netlink import Message, Socket, attribute, be16, nested, text
from podplane.kernel.rtnl import constants, encode
from podplane.kernel.rtnl.conflicts import MODULES
from podplane.state.network import Gre, Link, Vxlan

NAME = "probe"
NETLINK_ROUTE = 0
IFLA_GRE_IFLAGS, GRE_ROUTING = 2, 0x4000
"""linux/if_tunnel.h."""
NOBODYS = attribute(constants.IFLA_ADDRESS, b"\0")
"""A MAC that is too short (eth_validate_addr)."""
OPTIONS = {"vxlan": {"vxlan": Vxlan(vni=1)}, "gre": {"gre": Gre()}, "ip6gre": {"gre": Gre()}}


def missing(kinds: Iterable[str]) -> list[str]:
    """Those of these kinds of which this kernel can make no links; it loads modules that it has. A process of one thread may ask: a child
    of its own tries it in a network namespace of its own. None are said to be missing where that can't be tried."""
    wanted = sorted(set(kinds))
    if not wanted:
        return []
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(wanted, writer)
    os.close(writer)
    with open(reader, encoding="ascii") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said.split()


def unknown(namespace: Namespace, kinds: Iterable[str]) -> list[str]:
    """The same without a child, and without making a link: each kind is asked for one that it refuses (`rtnl_link_ops.validate`), which
    only a kernel does that knows the kind. The process has CAP_NET_ADMIN there. OSError when it can't be asked."""
    socket = namespace.run(Socket, NETLINK_ROUTE)
    try:
        return [kind for kind in sorted(set(kinds)) if _refuses(socket, _senseless(kind)) == errno.EOPNOTSUPP]
    finally:
        socket.close()


def _senseless(kind: str) -> Message:
    """What asks for a link of this kind that can't be. Tunnels of layer 3 take any address, and no source routing
    (ipgre_tunnel_validate)."""
    data = [nested(constants.IFLA_INFO_DATA, be16(IFLA_GRE_IFLAGS, GRE_ROUTING))] if "gre" in kind else []
    info = nested(constants.IFLA_LINKINFO, text(constants.IFLA_INFO_KIND, kind), *data)
    name = text(constants.IFLA_IFNAME, NAME)
    return Message(constants.RTM_NEWLINK, encode.CREATE, constants.LINK.pack(0, 0, 0, 0, 0) + name + NOBODYS + info)


def _refuses(socket: Socket, message: Message) -> int:
    return next((refusal.errno for refusal in socket.request([message])), 0)


def modules(kinds: Iterable[str]) -> str:
    """How to say which modules bring these kinds."""
    names = [MODULES[kind] for kind in kinds]
    return f"module{'s' if len(names) > 1 else ''} {' and '.join(names)}"


def _answer(kinds: Iterable[str], writer: int) -> NoReturn:
    """In the child: write the kinds that are refused, and end."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET)
        os.write(writer, " ".join(kind for kind in kinds if _is_missing(kind)).encode())
    finally:
        os._exit(0)


def _is_missing(kind: str) -> bool:
    link = Link(name=NAME, kind=kind, up=False, **OPTIONS.get(kind, {}))  # type: ignore[arg-type]  # each has its own type
    message = encode.new_link(link, 0, lambda name: 0, lambda netns: 0)
    socket = Socket(NETLINK_ROUTE)
    try:
        return any(refusal.errno == errno.EOPNOTSUPP for refusal in socket.request([message]))
    finally:
        socket.close()
