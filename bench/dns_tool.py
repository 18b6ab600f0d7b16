"""Questions from inside a pod or a node of a lab; only the standard library, so that any Python there runs it.

dns_tool.py many SERVER NAME COUNT                    asks for A and AAAA at once from a fresh socket, so many times; prints the answers
dns_tool.py steady SERVER NAME RATE SECONDS           asks as a resolver with its usual retry does; prints how many got no answer at all
dns_tool.py tracked                                   prints the entries of connection tracking that are of port 53
dns_tool.py seen SECONDS                              prints the questions that leave this place, a line each
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

PORT, A, AAAA = 53, 1, 28
OUTGOING = 4
"""PACKET_OUTGOING of packet(7)."""
TIMEOUT_SECONDS, ATTEMPTS = 5.0, 2
"""As of resolv.conf(5)."""


def question(number: int, name: str, type_: int) -> bytes:
    """A query with this id."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!B2H", 0, type_, 1)


def many(server: str, name: str, count: int) -> int:
    """Answers to pairs of questions, each from a port of its own."""
    answered = 0
    for number in range(count // 2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((server, PORT))
            asking.settimeout(TIMEOUT_SECONDS)
            for type_ in (A, AAAA):
                asking.send(question(number & 0xFFFF, name, type_))
            for _ in (A, AAAA):
                answered += bool(asking.recv(512))
    return answered


def steady(server: str, name: str, rate: int, seconds: float) -> int:
    """Questions that nothing answered, of those that are asked at this rate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        asking.connect((server, PORT))
        waiting: dict[int, list[float]] = {}
        lost, sent, began = 0, 0, time.monotonic()
        while (now := time.monotonic()) - began < seconds or waiting:
            while now - began < seconds and sent < (now - began) * rate:
                waiting[sent & 0xFFFF] = [now]
                asking.send(question(sent & 0xFFFF, name, A))
                sent += 1
            for number, times in list(waiting.items()) if sent % 50 == 0 or now - began >= seconds else ():
                if now - times[-1] >= TIMEOUT_SECONDS:
                    if len(times) == ATTEMPTS:
                        del waiting[number]
                        lost += 1
                    else:
                        times.append(now)
                        asking.send(question(number, name, A))
            while select.select([asking], [], [], 0.001)[0]:
                try:
                    waiting.pop(struct.unpack_from("!H", asking.recv(512))[0], None)
                except OSError:
                    break  # an ICMP error: asked again after the time-out
        return lost


def tracked() -> int:
    """Entries of this network namespace."""
    with open("/proc/net/nf_conntrack") as lines:
        return sum(f"dport={PORT} " in line for line in lines)


def seen(seconds: float) -> None:
    """Questions on all links, until nothing came for a while."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as link:
        print("ready", flush=True)
        end = time.monotonic() + seconds
        while select.select([link], [], [], max(end - time.monotonic(), 0))[0]:
            packet, (_, _, direction, *_) = link.recvfrom(2048)
            if direction == OUTGOING and (found := asked(packet)):
                print(found, flush=True)


def asked(packet: bytes) -> str:
    """Name and type of the question in an IPv4 packet; "" when there is none."""
    if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_UDP:
        return ""
    at = (packet[0] & 15) * 4
    if struct.unpack_from("!2H", packet, at)[1] != PORT:
        return ""
    at, labels = at + 8 + 12, []
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return f"{'.'.join(labels)} {struct.unpack_from('!H', packet, at + 1)[0]}"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["many", server, name, count]:
            print(many(server, name, int(count)))
        case ["steady", server, name, rate, seconds]:
            print(steady(server, name, int(rate), float(seconds)))
        case ["tracked"]:
            print(tracked())
        case ["seen", seconds]:
            seen(float(seconds))
