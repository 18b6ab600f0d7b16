"""Asks for a name's A and AAAA at once, from one socket, many times a second, and asks again as resolvers do. To be run in a pod.

asker.py SERVER NAME PAIRS PAIRS-A-SECOND TIMEOUT ATTEMPTS  →  JSON: asked, unanswered, wrong, again (questions asked again)
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

A, AAAA = 1, 28


def question(number: int, name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def main(server: str, name: str, pairs: int, rate: float, timeout: float, attempts: int) -> dict[str, int]:
    asked = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    asked.connect((server, 53))
    asked.setblocking(False)
    waiting: dict[int, list[float]] = {}
    result = {"asked": 0, "unanswered": 0, "wrong": 0, "again": 0}
    began = time.monotonic()
    while waiting or result["asked"] < 2 * pairs:
        now = time.monotonic()
        while result["asked"] < 2 * pairs and began + result["asked"] / 2 / rate <= now:
            for kind in (A, AAAA):
                asked.send(question(result["asked"], name, kind))
                waiting[result["asked"]] = [now + timeout, 1]
                result["asked"] += 1
        if select.select([asked], [], [], 0.2 / rate)[0]:
            data = asked.recv(4096)
            result["wrong"] += bool(data[3] & 15) or waiting.pop(int.from_bytes(data[:2], "big"), None) is None
        for number, (until, tries) in list(waiting.items())[:100]:
            if until > now:
                break
            del waiting[number]
            if tries >= attempts:
                result["unanswered"] += 1
                continue
            asked.send(question(number, name, (A, AAAA)[number % 2]))
            result["again"] += 1
            waiting[number] = [now + timeout, tries + 1]
    return result


if __name__ == "__main__":
    address, wanted, *numbers = sys.argv[1:]
    print(json.dumps(main(address, wanted, int(numbers[0]), float(numbers[1]), float(numbers[2]), int(numbers[3]))))
