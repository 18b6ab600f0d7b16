"""Kinds of links that a kernel may lack, and the modules that bring them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import NoReturn

from podplane.kernel import syscalls
from podplane.kernel.netlink import Socket
from podplane.kernel.rtnl import encode
from podplane.kernel.rtnl.conflicts import MODULES
from podplane.state.network import Gre, Link, Vxlan

NAME = "probe"
NETLINK_ROUTE = 0
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
