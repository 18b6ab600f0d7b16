"""What the process that starts a name server tells it, over a SEQPACKET socket: one message each, some with descriptors.

Begin                            the API, the cluster's domain and networks
Hosts                            addresses of the cluster's nodes that came or went since: there may be thousands
Inside + a namespace             networks that are reached from there, and not from the process's own namespace
Open + bound sockets             answer questions that come by these sockets of a node
Close                            answer none of this node's any more
Reach                            whether the API can be reached: a fault may cut it off
Ping                             say that you live
◄── Ready                        the cluster's objects are there, and all sockets so far are served
◄── Pong                         the event loop turns
"""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from podplane.dns.resolv_conf import ResolvConf
from podplane.kubeapi.access import Access

log = logging.getLogger(__name__)
MESSAGE_BYTES = 128 * 1024
"""Of one message at most."""
MAX_HOSTS = 1000
"""Addresses of one message: some 42 KB."""
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
"""What is said of an other end that is closed."""
MAX_DESCRIPTORS = 253
"""Of one message (SCM_MAX_FD of Linux)."""
UDP, TCP, HTTP = "udp", "tcp", "http"


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """The first message. `networks` are CIDRs whose clients are answered, beside `Hosts`; `cluster` are those of pods and of
    Services, whose addresses have no names but the cluster's. `restarts`: the process before ended so often. `ips` are the cluster IPs
    of the cluster's DNS, `machine` the resolv.conf of the nodes."""

    access: Access
    domain: str
    networks: tuple[str, ...]
    cluster: tuple[str, ...]
    restarts: int = 0
    ips: tuple[str, ...] = ()
    machine: ResolvConf = ResolvConf()


class Hosts(msgspec.Struct, tag="hosts", frozen=True):
    """Addresses of nodes: those that are answered from now on, and those that no longer are; at most MAX_HOSTS."""

    come: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class Inside(msgspec.Struct, tag="inside", frozen=True):
    """A network namespace: the nodes are not in that of the process. `networks` are CIDRs that are reached from it."""

    networks: tuple[str, ...]


class Open(msgspec.Struct, tag="open", frozen=True):
    """Bound sockets of a node: the protocol of each."""

    node: str
    protocols: tuple[str, ...]


class Close(msgspec.Struct, tag="close", frozen=True):
    """All sockets of a node."""

    node: str


class Reach(msgspec.Struct, tag="reach", frozen=True):
    """Whether the API is in reach; it is, until something else is said."""

    api: bool


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """A question whether it lives."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """It serves."""


class Pong(msgspec.Struct, tag="pong", frozen=True):
    """The answer to a Ping."""


Order = Begin | Hosts | Inside | Open | Close | Reach | Ping
News = Ready | Pong
_orders = msgspec.json.Decoder(Order)
_news = msgspec.json.Decoder(News)


def hosts(come: Iterable[str] = (), gone: Iterable[str] = ()) -> Iterator[Hosts]:
    """However many addresses, in messages."""
    came, went = tuple(come), tuple(gone)
    for begin in range(0, len(came), MAX_HOSTS):
        yield Hosts(come=came[begin : begin + MAX_HOSTS])
    for begin in range(0, len(went), MAX_HOSTS):
        yield Hosts(gone=went[begin : begin + MAX_HOSTS])


def send(connection: socket.socket, message: Order | News, *fds: int) -> None:
    """Send one message. OSError when the other end is gone or the message too long, BlockingIOError when it reads too slowly."""
    data = msgspec.json.encode(message)
    if len(data) > MESSAGE_BYTES:  # the kernel may take it, and the other end would read a part
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    socket.send_fds(connection, [data], fds)


def receive(connection: socket.socket) -> tuple[Order | None, list[int]]:
    """The next order, and the descriptors that came with it; None when the other end is closed."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * descriptors.itemsize)
    data, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return (_orders.decode(data) if data else None), list(descriptors)


def receive_news(connection: socket.socket) -> News | None:
    """What the process says; None when it ended."""
    data = connection.recv(MESSAGE_BYTES)
    return _news.decode(data) if data else None


class Sender:
    """Sends orders in their order, as fast as the process takes them. To be made and used on an event loop; the descriptors of an order
    are to stay open."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._waiting: deque[tuple[Order, tuple[int, ...]]] = deque()
        self._loop = asyncio.get_running_loop()

    def send(self, order: Order, *fds: int) -> None:
        """Send it, now or later; to a process that ended, nothing is."""
        self._waiting.append((order, fds))
        if len(self._waiting) == 1:
            self._flush()

    def close(self) -> None:
        """Send no more; idempotent."""
        self._waiting.clear()
        self._loop.remove_writer(self._connection)

    def _flush(self) -> None:
        while self._waiting:
            order, fds = self._waiting[0]
            try:
                send(self._connection, order, *fds)
            except BlockingIOError:
                self._loop.add_writer(self._connection, self._flush)
                return
            except OSError as error:
                if error.errno in GONE:
                    self._waiting.clear()
                    break
                log.error("the name server is not told %s: %s", type(order).__name__, error)
            self._waiting.popleft()
        self._loop.remove_writer(self._connection)
