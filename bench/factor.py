"""How fast is this machine? A fixed piece of Python work and a fixed piece of kernel work, beside what they take on the reference machine.

The work never changes with podplane's code: nothing of podplane is imported, and netlink messages are packed here. Whoever changes the work
must calibrate again (see REFERENCE).

- `python_seconds`: what planners and codecs do. Addresses, keys of tuples, frozen objects, dictionaries that are merged and compared, and
  messages packed with `struct`, joined, and unpacked again.
- `kernel_seconds`: network namespaces, veth pairs with one end in such a namespace, and 100,000 elements of an nf_tables map whose
  transactions were packed before the clock starts. It must run in a user and network namespace of its own: `measure()` starts it there.

`python -m bench.factor` prints the factors of this machine.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.judging import Factors

# The Python work.

OBJECTS = 8_000
HEADER, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Item:
    """Something like an element of a table."""

    table: str
    key: tuple[ipaddress.IPv4Address, str, int]
    data: tuple[ipaddress.IPv4Address, int]
    comment: str


def python_work(objects: int = OBJECTS) -> int:
    """The fixed piece; how many messages were unpacked again at the end."""
    first, target = ipaddress.IPv4Address("10.96.0.1"), ipaddress.IPv4Address("10.128.0.0")
    desired: dict[tuple[str, object], Item] = {}
    for number in range(objects):
        group = (
            Item("t", (first + number, protocol, 80), (target + number, 8080), f"svc/default/s{number}:{protocol}")
            for protocol in ("tcp", "udp")
        )
        desired.update({(item.table, item.key): item for item in group})
    changed = {**desired, **{key: item for key, item in desired.items() if item.key[1] == "udp"}}
    ordered = sorted((item for key, item in changed.items() if desired.get(key) == item), key=lambda item: item.comment)
    data = b"".join(_message(number, item) for number, item in enumerate(ordered, 1))
    return sum(1 for _ in _unpacked(data))


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def _message(number: int, item: Item) -> bytes:
    ip, protocol, port = item.key
    key = ip.packed + protocol.encode().ljust(4, b"\0") + struct.pack(">HH", port, 0)
    value = item.data[0].packed + struct.pack(">HH", item.data[1], 0)
    body = _attribute(1, key) + _attribute(2, value) + _attribute(3, item.comment.encode())
    return HEADER.pack(16 + len(body), 10, 1, number, 0) + body


def _unpacked(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    offset = 0
    while offset < len(data):
        length, _, _, number, _ = HEADER.unpack_from(data, offset)
        at, found = offset + 16, {}
        while at < offset + length:
            size, kind = ATTRIBUTE.unpack_from(data, at)
            found[kind] = data[at + 4 : at + size]
            at += (size + 3) & ~3
        yield number, found
        offset += length


# The kernel work.

NAMESPACES, VETHS, ELEMENTS = 100, 200, 100_000
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
CLONE_NEWNET = 0x4000_0000
NESTED = 0x8000
REQUEST, ACK, EXCL, CREATE = 0x1, 0x4, 0x200, 0x400
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 20, 24
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 3, 10, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFF_UP = 1
LINK = struct.Struct("=BxHiII")
TRANSACTION_BYTES, MESSAGE_BYTES = 160 * 1024, 48 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute."""
    return _attribute(kind, value)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute of attributes."""
    return _attribute(kind | NESTED, b"".join(attributes))


def message(kind: int, flags: int, payload: bytes, number: int = 0) -> bytes:
    """One netlink message, padded."""
    return HEADER.pack(16 + len(payload), kind, REQUEST | flags, number, 0) + payload + b"\0" * (-len(payload) & 3)


def check_answers(netlink: socket.socket) -> int:
    """Read all that the kernel has answered: it answers within send(). How many acknowledgements; OSError for the first refusal."""
    count = 0
    while True:
        try:
            data = netlink.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return count
        offset = 0
        while offset < len(data):
            length, kind, _, number, _ = HEADER.unpack_from(data, offset)
            code = -struct.unpack_from("=i", data, offset + 16)[0] if kind == 2 else 0
            if code:
                raise OSError(code, f"{os.strerror(code)} (message {number})")
            count += kind == 2
            offset += (length + 3) & ~3


def new_namespace() -> int:
    """Enter a new network namespace; its descriptor."""
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(fd: int) -> None:
    """Enter a network namespace."""
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def veth(name: str, peer_namespace: int, peer: str, index: int = 0, master: int = 0, of_each_end: bytes = b"") -> bytes:
    """The message that makes a veth pair: one end here and up, the other one in a namespace; further attributes `of_each_end`."""
    far = LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, peer.encode() + b"\0")
    far += attribute(IFLA_NET_NS_FD, struct.pack("=I", peer_namespace)) + of_each_end
    info = nested(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"veth\0"),
        nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, far)),
    )
    payload = LINK.pack(0, 0, index, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    payload += attribute(IFLA_MASTER, struct.pack("=I", master)) if master else b""
    return message(RTM_NEWLINK, CREATE | EXCL | ACK, payload + of_each_end + info)


NFT, BATCH_BEGIN, BATCH_END = 10, 16, 17
NEWTABLE, NEWSET, NEWSETELEM = NFT << 8 | 0, NFT << 8 | 9, NFT << 8 | 12
INET = struct.pack(">BBH", 1, 0, 0)
EDGE = struct.pack(">BBH", 0, 0, NFT)


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def transaction(*messages: tuple[int, int, bytes]) -> bytes:
    """(type, flags, payload) of each as a batch of nf_tables."""
    parts = [message(BATCH_BEGIN, 0, EDGE, 1)]
    parts += [message(kind, flags, INET + payload, number) for number, (kind, flags, payload) in enumerate(messages, 2)]
    return b"".join([*parts, message(BATCH_END, 0, EDGE, len(messages) + 2)])


def map_of_ports(table: str, name: str) -> bytes:
    """A transaction that makes a table with a map ipv4_addr . inet_service : ipv4_addr . inet_service."""
    header = attribute(1, table.encode() + b"\0")
    types = 7 << 6 | 13  # TYPE_IPADDR, TYPE_INET_SERVICE of nft, six bits each
    body = header + attribute(2, name.encode() + b"\0") + _be32(3, 0x8) + _be32(4, types) + _be32(5, 8)
    return transaction((NEWTABLE, CREATE, header), (NEWSET, CREATE, body + _be32(6, types) + _be32(7, 8) + _be32(10, 1)))


def _of_set(table: str, name: str) -> bytes:
    return attribute(1, table.encode() + b"\0") + attribute(2, name.encode() + b"\0")


def _element(number: int) -> bytes:
    key = struct.pack(">IHH", 0x0A60_0000 + number, 80, 0)
    data = struct.pack(">IHH", 0x0A80_0000 + number, 8080, 0)
    comment = f"svc/default/s{number}\0".encode()
    user = attribute(6, bytes((0, len(comment))) + comment)
    return nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, data)), user)


def one_element(table: str, name: str, number: int) -> bytes:
    """A transaction that adds one element to the map."""
    return transaction((NEWSETELEM, CREATE | EXCL, _of_set(table, name) + nested(3, _element(number))))


def elements(table: str, name: str, count: int) -> Iterator[bytes]:
    """Transactions that fill the map, each as large as one send may be without privileges."""
    header = _of_set(table, name)
    batch: list[tuple[int, int, bytes]] = []
    pieces: list[bytes] = []
    size = total = 0
    for number in range(count):
        pieces.append(_element(number))
        size += len(pieces[-1])
        if size > MESSAGE_BYTES or number == count - 1:
            batch.append((NEWSETELEM, CREATE | EXCL, header + nested(3, *pieces)))
            total, size, pieces = total + size, 0, []
        if batch and (total > TRANSACTION_BYTES - MESSAGE_BYTES or number == count - 1):
            yield transaction(*batch)
            total, batch = 0, []


def send_all(netlink: socket.socket, transactions: Sequence[bytes]) -> float:
    """Seconds until the kernel has taken them all. OSError when it refuses one."""
    began = time.perf_counter()
    for data in transactions:
        netlink.send(data)
        check_answers(netlink)
    return time.perf_counter() - began


def kernel_work(namespaces: int = NAMESPACES, veths: int = VETHS, count: int = ELEMENTS) -> dict[str, float]:
    """Seconds of each part. Only in a user and network namespace of its own."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    began = time.perf_counter()
    made = [new_namespace() for _ in range(namespaces)]
    enter(home)
    parts = {"namespaces": time.perf_counter() - began}
    began = time.perf_counter()
    for number in range(veths):
        route.send(veth(f"v{number}", made[number % namespaces], f"e{number}"))
        check_answers(route)
    parts["veths"] = time.perf_counter() - began
    send_all(netfilter, [map_of_ports("factor", "ports")])
    parts["elements"] = send_all(netfilter, list(elements("factor", "ports", count)))
    for one in (route, netfilter):
        one.close()
    for fd in (home, *made):
        os.close(fd)
    return parts


# Beside the reference machine.

PYTHON_ROUNDS, KERNEL_ROUNDS = 5, 3


REFERENCE = {"python": 0.085, "kernel": 0.12}
"""Seconds of the two pieces on the reference machine; CALIBRATION says how they were found."""
CALIBRATION = """What the two pieces take on the reference machine is derived, not measured: it is not at hand any more. On 2026-11-26 the
code whose figures stand from it (of 2026-11-24) ran on an AMD EPYC that other programs used at the same time, each row between two
measurements of the pieces; a piece on the reference machine takes what it took there, divided by how many times as long the row took.

- python, 85 ms. Nine rounds, none left out: filling gives a median of 81 ms (65 to 152), a thousand endpoints 81 (60 to 182), a restart
  85 (54 to 150); together 84, half of the values between 77 and 94. One endpoint, p50, gives 115 (86 to 761) and is not counted: the
  median of samples of 0.2 ms does not grow with the load, and the piece does. Had it been counted, the median would be 87.
- kernel, 120 ms: **provisional**. The only row was the start of 100 nodes × 10 sandboxes, taken for half Python and half kernel, which is
  assumed. Six rounds gave 96, 116, 338, 901, 411 and 1,236 ms. 120 follows from the first two, which had the least load (1.4 to 2.5); they
  were chosen when the values were known. The row took 5.8 s in the quietest round, 3.91 s on the reference machine.
  TCP between two paths by hand was to be a check and is none: in three rounds the EPYC took 1.3 to 3.7 times as long for a round
  trip and 1.9 to 7.8 times for a connection.

So the reference for Python is known to some 12 %, as far as half of the values go, and the one for the kernel to no better than a factor of
two or three: verdicts of "kernel" and "mixed" rows are provisional with it, until the pieces run on the reference machine. The pieces also
take longer where other programs use the machine, and not by as much as each row does: judge on a machine that does nothing else.
Where a factor changed by more than a quarter during a bench, its rows say "unsure" instead of "yes"."""


def measure() -> Factors:
    """The factors of this machine, now."""
    return Factors(python_seconds() / REFERENCE["python"], kernel_seconds() / REFERENCE["kernel"])


def python_seconds(rounds: int = PYTHON_ROUNDS) -> float:
    """The median of several runs of the Python work, in a process of its own: what this one has in memory costs nothing."""
    return float(_in_child("python", str(rounds))["seconds"])


def kernel_seconds(rounds: int = KERNEL_ROUNDS) -> float:
    """The median of several runs of the kernel work, each in namespaces of its own."""
    return median(sum(kernel_parts().values()) for _ in range(rounds))


def kernel_parts() -> dict[str, float]:
    """One run of the kernel work, in namespaces of its own: seconds of each part."""
    return _in_child("kernel", before=["unshare", "--user", "--map-root-user", "--net"])


def _in_child(*words: str, before: list[str] | None = None) -> dict[str, float]:
    command = [*(before or []), sys.executable, "-m", "bench.factor", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"the machine can't be measured: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main(words: list[str]) -> None:
    """In the child: a piece. Without a word: the factors."""
    if words[:1] == ["python"]:
        print(json.dumps({"seconds": median(_timed(python_work) for _ in range(int(words[1])))}))
    elif words[:1] == ["kernel"]:
        if [name for _, name in socket.if_nameindex()] != ["lo"]:
            raise SystemExit("the kernel work runs in a network namespace of its own: python -m bench.factor")
        print(json.dumps(kernel_work()))
    else:
        print(measure())


if __name__ == "__main__":
    main(sys.argv[1:])
