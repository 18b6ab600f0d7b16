"""Checks before a start: does this machine have what a lab of this size needs?"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterable

from podplane.kernel import link_kinds
from podplane.lab.errors import LabError
from podplane.lab.spec import DEFAULT_PORT, LabSpec
from podplane.model.words import counted
from podplane.routes.table import backend

FILES_BASE, FILES_PER_NODE, FILES_PER_POD = 200, 20, 8
"""Open files of a lab process, as counted with 100 nodes and 1,000 pods, rounded up."""
HOST = "127.0.0.1"


def raise_file_limit() -> None:
    """Lift the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_file_limit(nodes: int, pods: int) -> None:
    """LabError when this machine lets a process open too few files for so many nodes and pods."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = FILES_BASE + FILES_PER_NODE * nodes + FILES_PER_POD * pods
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LabError(
            f"{counted(nodes, 'node')} with {counted(pods, 'pod')} need some {wanted:,} open files, the limit here is {hard:,}: "
            "raise it (ulimit -Hn, or LimitNOFILE of the service that runs this shell), or take fewer nodes and pods"
        )


def check_backend(name: str, versions: Iterable[int], option: str) -> None:
    """LabError when this machine's kernel can't make the links of a backend between nodes with addresses of these IP versions; `option` is
    how the user asked for it."""
    kinds = backend(name).kinds
    lacking = link_kinds.missing(kinds[version] for version in versions if version in kinds)
    if lacking:
        raise LabError(
            f"{option}: this kernel makes no links of type {' and '.join(lacking)}, it lacks the {link_kinds.modules(lacking)}: "
            "choose another backend, or another kernel"
        )


def listen(spec: LabSpec) -> socket.socket:
    """The listening socket of the API: the port asked for, or the usual one, or any free one when that is taken.

    LabError when the port that was asked for is in use.
    """
    for port in [spec.port] if spec.port else [DEFAULT_PORT, 0]:
        try:
            return bind(HOST, port)
        except OSError as error:
            reason = error.strerror
    raise LabError(f"port {spec.port} of {HOST} is not available ({reason}): choose another --port, or leave it out")


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket. OSError when the address is in use or not the machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol said, asyncio turns Nagle's algorithm off; an answer in two pieces would wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener
