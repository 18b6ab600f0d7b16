"""What the kernel alone takes: the floor under a figure, measured in the same run. Nothing here plans, and nothing is read back.

`python -m bench.floors NODES PODS`, in a user and network namespace of its own, prints the seconds in which the kernel makes the
namespaces, links, addresses and routes of a lab.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from bench import factor
from bench.factor import ACK, CREATE, EXCL, LINK, attribute, message, nested

RTM_NEWADDR, RTM_NEWROUTE = 20, 24
ADDRESS, ROUTE = struct.Struct("=BBBBi"), struct.Struct("=BBBBBBBBI")
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
RTA_GATEWAY, RTA_OIF = 5, 4
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
BRIDGE_INDEX, PORT_INDEX, POD_INDEX = 1000, 1001, 2
LOOPBACK_INDEX = 1
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
ONE_QUEUE = b"".join(attribute(kind, struct.pack("=I", 1)) for kind in (IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES))


def lab_seconds(nodes: int, pods: int) -> float:
    """Seconds for the namespaces, links, addresses and routes of a lab of this size; in a process and namespaces of their own."""
    words = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "bench.floors", str(nodes), str(pods)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(json.loads(done.stdout))


# In the namespace, which stands for the lab's underlay.


def build(nodes: int, pods: int) -> tuple[float, list[int]]:
    """Make it all: the seconds that it took, and the descriptors that hold the namespaces. OSError for what the kernel refuses."""
    of_nodes = [_of_node(number) for number in range(nodes)]
    of_pods = [[_of_pod(number, pod) for pod in range(pods)] for number in range(nodes)]
    began = time.perf_counter()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    kept: list[int] = []
    with _netlink() as underlay:
        _send(underlay, [_bridge("switch0", BRIDGE_INDEX)])
        for number in range(nodes):
            kept.append(own := factor.new_namespace())
            with _netlink() as node:
                factor.enter(home)
                port = factor.veth(f"port{number}", own, "eth0", PORT_INDEX + number, BRIDGE_INDEX, ONE_QUEUE)
                _send(underlay, [port])
                _send(node, of_nodes[number])
                for pod in range(pods):
                    kept.append(theirs := factor.new_namespace())
                    with _netlink() as inside:
                        _send(node, [factor.veth(f"pod{pod}", theirs, "eth0", PORT_INDEX + pod, BRIDGE_INDEX, ONE_QUEUE)])
                        _send(inside, of_pods[number][pod])
    return time.perf_counter() - began, kept


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, factor.NETLINK_ROUTE)


def _send(netlink: socket.socket, messages: list[bytes]) -> None:
    netlink.send(b"".join(messages))
    if factor.check_answers(netlink) != len(messages):
        raise OSError("the kernel did not answer each message")


def _bridge(name: str, index: int) -> bytes:
    info = nested(factor.IFLA_LINKINFO, attribute(factor.IFLA_INFO_KIND, b"bridge\0"))
    header = LINK.pack(0, 0, index, factor.IFF_UP, factor.IFF_UP)
    return message(
        factor.RTM_NEWLINK, CREATE | EXCL | ACK, header + attribute(factor.IFLA_IFNAME, name.encode() + b"\0") + info
    )


def _up(index: int) -> bytes:
    return message(factor.RTM_NEWLINK, ACK, LINK.pack(0, 0, index, factor.IFF_UP, factor.IFF_UP))


def _address(index: int, text: str) -> bytes:
    found = ipaddress.ip_interface(text)
    flags = IFA_F_NODAD if found.version == 6 else 0
    payload = ADDRESS.pack(AF[found.version], found.network.prefixlen, flags, 0, index)
    payload += attribute(IFA_LOCAL, found.ip.packed) + attribute(IFA_ADDRESS, found.ip.packed)
    return message(RTM_NEWADDR, CREATE | EXCL | ACK, payload)


def _default_route(index: int, gateway: str) -> bytes:
    ip = ipaddress.ip_address(gateway)
    payload = ROUTE.pack(AF[ip.version], 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    payload += attribute(RTA_GATEWAY, ip.packed) + attribute(RTA_OIF, struct.pack("=I", index))
    return message(RTM_NEWROUTE, CREATE | EXCL | ACK, payload)


def _blocks(number: int) -> Iterator[str]:
    """The first three bytes, or hextets, of a node's two blocks."""
    yield f"10.{244 + (number >> 8)}.{number & 255}."
    yield f"fd00:10:244:{number:x}::"


def _of_node(number: int) -> list[bytes]:
    """The messages of one node: loopback, uplink, and the bridge of its pods."""
    four, six = _blocks(number)
    return [
        _up(LOOPBACK_INDEX),
        _up(POD_INDEX),
        _bridge("cbr0", BRIDGE_INDEX),
        _address(POD_INDEX, f"172.16.{number >> 8}.{number & 255}/16"),
        _address(POD_INDEX, f"fd00:172:16::{number + 1:x}/64"),
        _address(BRIDGE_INDEX, f"{four}1/24"),
        _address(BRIDGE_INDEX, f"{six}1/64"),
    ]


def _of_pod(number: int, pod: int) -> list[bytes]:
    """The messages of one pod."""
    four, six = _blocks(number)
    return [
        _up(LOOPBACK_INDEX),
        _up(POD_INDEX),
        _address(POD_INDEX, f"{four}{pod + 2}/24"),
        _address(POD_INDEX, f"{six}{pod + 2:x}/64"),
        _default_route(POD_INDEX, f"{four}1"),
        _default_route(POD_INDEX, f"{six}1"),
    ]


def main(words: list[str]) -> None:
    """In the namespace: the seconds."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("this part of a bench runs in a network namespace of its own: python -m bench.run start_stop")
    seconds, _ = build(int(words[0]), int(words[1]))
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
