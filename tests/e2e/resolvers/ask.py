"""Asks resolver libraries of this container for names.

`ask.py '{"libraries": …, "names": […]}'` writes {library: {name: [address, …]}}.

A library is a command that the name is added to, or "python" or "dnspython". With "count" it writes the questions that leave by UDP while
each of several commands runs, instead.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading

OUTGOING, UDP, DNS = 4, 17, 53
LAST = "last.question.invalid"
"""A question of this program: all before it were heard when it is."""


def by_command(words: list[str], name: str) -> list[str]:
    """The first word of each line."""
    done = subprocess.run([*words, name], capture_output=True, text=True, timeout=60)
    return sorted({line.split()[0] for line in done.stdout.splitlines()}) if done.returncode == 0 else []


def by_python(name: str) -> list[str]:
    """What the socket module has."""
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    except socket.gaierror:
        return []


def by_dnspython(name: str) -> list[str]:
    """What a resolver has that nobody here wrote, and that is not the libc's."""
    import dns.exception
    import dns.resolver

    try:
        return sorted(set(dns.resolver.Resolver().resolve_name(name, search=True).addresses()))
    except dns.exception.DNSException:
        return []


def ask(library: str | list[str], name: str) -> list[str]:
    """The addresses of a name."""
    if isinstance(library, list):
        return by_command(library, name)
    return by_python(name) if library == "python" else by_dnspython(name)


def questions(words: list[str]) -> list[str]:
    """The questions that leave this network while a command runs, `1 name` each."""
    heard: list[str] = []
    is_over = threading.Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as packets:

        def listen() -> None:
            while True:
                packet, address = packets.recvfrom(65535)
                head = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
                protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
                if address[2] == OUTGOING and protocol == UDP and struct.unpack_from("!H", packet, head + 2)[0] == DNS:
                    question = asked(packet, head + 8 + 12)
                    if LAST in question:
                        is_over.set()
                        return
                    heard.append(question)

        threading.Thread(target=listen, daemon=True).start()
        by_command(words[:-1], words[-1])
        by_command(["dig", "+short", "+tries=3"], LAST + ".")
        assert is_over.wait(30)
    return sorted(heard)


def asked(packet: bytes, at: int) -> str:
    """The type and the name of a question."""
    labels = []
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return f"{struct.unpack_from('!H', packet, at + 1)[0]} {'.'.join(labels)}"


def main() -> None:
    """What is asked stands in the first argument."""
    given = json.loads(sys.argv[1])
    if "count" in given:
        print(json.dumps([questions(words) for words in given["count"]]))
    else:
        found = {key: {name: ask(one, name) for name in given["names"]} for key, one in given["libraries"].items()}
        print(json.dumps(found))


if __name__ == "__main__":
    main()
