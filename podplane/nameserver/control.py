"""What the process that starts a name server tells it, over a SEQPACKET socket: one message each, some with a descriptor.

Begin                      the API, the cluster's domain and networks
Inside + a namespace       networks that are reached from there, and not from the process's own namespace
Open + a bound socket      answer questions that come by this socket
Close                      answer none of this node's any more
◄── Ready                  the cluster's objects are there, and all sockets so far are served
"""

from __future__ import annotations

import array
import socket

import msgspec

from podplane.dns.resolv_conf import ResolvConf

MESSAGE_BYTES = 128 * 1024
UDP, TCP, HTTP = "udp", "tcp", "http"


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """The first message. `networks` are CIDRs whose clients are answered: of pods and of nodes; `cluster` are those of pods and of
    Services, whose addresses have no names but the cluster's. `restarts`: the process before ended so often. `ips` are the cluster IPs
    of the cluster's DNS, `machine` the resolv.conf of the nodes."""

    api_host: str
    api_port: int
    api_token: str
    api_ca: str
    domain: str
    networks: tuple[str, ...]
    cluster: tuple[str, ...]
    restarts: int = 0
    ips: tuple[str, ...] = ()
    machine: ResolvConf = ResolvConf()


class Open(msgspec.Struct, tag="open", frozen=True):
    """A bound socket of a node, of one protocol."""

    node: str
    protocol: str


class Inside(msgspec.Struct, tag="inside", frozen=True):
    """A network namespace: the nodes are not in that of the process. `networks` are CIDRs that are reached from it."""

    networks: tuple[str, ...]


class Close(msgspec.Struct, tag="close", frozen=True):
    """All sockets of a node."""

    node: str


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """It serves."""


Order = Begin | Inside | Open | Close
_orders = msgspec.json.Decoder(Order)


def send(connection: socket.socket, message: Order | Ready, *fds: int) -> None:
    """Send one message. OSError when the other end is gone."""
    socket.send_fds(connection, [msgspec.json.encode(message)], fds)


def receive(connection: socket.socket) -> tuple[Order | None, list[int]]:
    """The next order, and the descriptors that came with it; None when the other end is closed."""
    descriptors = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % 4])
    return (_orders.decode(data) if data else None), list(descriptors)
