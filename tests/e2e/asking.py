"""A program for pods: asks its name server in some way, and prints what it got as JSON. Runs on the interpreter alone.

asking.py SERVER pairs COUNT       A and AAAA at once from one socket, COUNT times; how many were not answered, and the slowest
asking.py SERVER storm SECONDS     broken messages, silent connections, connections that are never read; how many
asking.py SERVER flood SECONDS     names that nobody asked for before, as fast as it can; how many
asking.py SERVER once NAME         the code and the number of addresses of one name
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import struct
import sys
import time

PORT = 53
WAIT_SECONDS = 5.0


def question(name: str, type_: int, id_: int) -> bytes:
    labels = b"".join(bytes((len(one),)) + one.encode() for one in name.split(".") if one)
    return struct.pack("!6H", id_, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", type_, 1)


def pairs(server: str, count: int) -> dict[str, float]:
    """Two questions at once from one socket, as musl's and glibc's resolver ask; a socket of its own each time, as they have."""
    missing, slowest = 0, 0.0
    for i in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((server, PORT))
            one.settimeout(WAIT_SECONDS)
            began = time.monotonic()
            for type_ in (1, 28):
                one.send(question("kubernetes.default.svc.cluster.local", type_, i * 2 % 65536 + (type_ == 28)))
            ids = set()
            with contextlib.suppress(TimeoutError):
                for _ in range(2):
                    ids.add(int.from_bytes(one.recv(512)[:2], "big"))
            missing += 2 - len(ids)
            slowest = max(slowest, time.monotonic() - began)
    return {"missing": missing, "slowest": slowest}


def storm(server: str, seconds: float) -> dict[str, int]:
    """All that a bad client does, at once."""
    chance, sent = random.Random(1), 0
    good = bytearray(question("kubernetes.default.svc.cluster.local", 1, 7))
    connections = [_connected(server) for _ in range(300)]
    never_read = _connected(server)
    longest = question("x.kubernetes.default.svc.cluster.local", 255, 7)
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((server, PORT))
        while time.monotonic() < end:
            for _ in range(50):
                data = bytearray(good)
                for _ in range(chance.randint(1, 4)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                name = f"{chance.randrange(10**9)}.default.svc.cluster.local"
                for one in (bytes(data), chance.randbytes(chance.randint(0, 300)), question(name, 1, 7)):
                    sent += 1
                    with contextlib.suppress(OSError):
                        udp.send(one)
            with contextlib.suppress(OSError):
                never_read.send((len(longest).to_bytes(2, "big") + longest) * 500)
            for one in chance.sample(connections, 20):
                with contextlib.suppress(OSError):
                    one.send(b"\xff\xff" + chance.randbytes(3000))
    return {"sent": sent, "connections": len(connections)}


def flood(server: str, seconds: float) -> dict[str, int]:
    """Questions whose answers are not waited for."""
    data = bytearray(question("00000000.default.svc.cluster.local", 1, 7))
    sent, end = 0, time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((server, PORT))
        while time.monotonic() < end:
            for _ in range(500):
                sent += 1
                data[13:21] = b"%08d" % sent
                with contextlib.suppress(OSError):
                    udp.send(data)
    return {"sent": sent}


def _connected(server: str) -> socket.socket:
    """A connection; who makes hundreds at once finds some reset."""
    for _ in range(100):
        with contextlib.suppress(ConnectionResetError):
            one = socket.create_connection((server, PORT), WAIT_SECONDS)
            one.setblocking(False)
            return one
    raise ConnectionError("each one was reset")


def once(server: str, name: str) -> dict[str, int]:
    """Over both protocols, with usual retries."""
    for _ in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((server, PORT))
            one.send(question(name, 1, 7))
            if select.select([one], [], [], WAIT_SECONDS)[0]:
                udp = one.recv(512)
                break
    else:
        return {"rcode": -1, "addresses": 0}
    with socket.create_connection((server, PORT), WAIT_SECONDS) as tcp:
        data = question(name, 1, 7)
        tcp.send(len(data).to_bytes(2, "big") + data)
        response = tcp.recv(600)[2:]
    return {"rcode": udp[3] & 0xF, "addresses": udp[7], "over TCP": response[7]}


if __name__ == "__main__":
    server, what, of = sys.argv[1:]
    ways = {
        "pairs": lambda: pairs(server, int(of)),
        "storm": lambda: storm(server, float(of)),
        "flood": lambda: flood(server, float(of)),
        "once": lambda: once(server, of),
    }
    print(json.dumps(ways[what]()))
