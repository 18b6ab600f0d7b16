"""CoreDNS with its kubernetes plugin, fed by podplane's own API server, and its answers in a form that can be compared."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from podplane.dns.config import PodNames
from podplane.kubeapi.access import Access
from tools.dns_facts import DOMAIN, NETWORKS, OUTSIDE, Question

Server = tuple[str, int]
Fact = list[Any]
"""[rcode, is it authoritative, answer, authority, additional]; records are lines of text in lower case, sorted."""
MODES: tuple[PodNames, ...] = ("insecure", "verified", "disabled")
"""What CoreDNS's option `pods` is set to, a server for each."""
FIRST_PORT = 5301
WAIT_SECONDS = 30.0
BLOCK = """.:{port} {{
  bind {ip}
  any
  file {folder}/example.test example.test
  kubernetes {domain} {networks} {{
    kubeconfig {folder}/kubeconfig
    pods {mode}
    ttl 5
  }}
}}
"""
SERIAL = re.compile(r"( soa \S+ \S+) \d+")
"""CoreDNS's is the time."""
SOA = "example.test. 5 IN SOA ns.example.test. hostmaster.example.test. 1 7200 1800 86400 5"


@contextlib.asynccontextmanager
async def running(program: str, access: Access, folder: Path) -> AsyncIterator[dict[str, Server]]:
    """The server of each mode, once they all answer."""
    servers = {mode: (_own_address(), port) for port, mode in enumerate(MODES, FIRST_PORT)}
    (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(access)))
    (folder / "example.test").write_text("\n".join([SOA, *_outside(), ""]))
    networks = " ".join(one for several in NETWORKS.values() for one in several)
    blocks = [
        BLOCK.format(port=port, ip=ip, mode=mode, domain=DOMAIN, networks=networks, folder=folder)
        for mode, (ip, port) in servers.items()
    ]
    (folder / "Corefile").write_text("".join(blocks))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, "-conf", str(folder / "Corefile"), stdout=log, stderr=log)
        try:
            await asyncio.to_thread(_wait, servers.values())
            yield servers
        finally:
            process.terminate()
            await process.wait()


def _own_address() -> str:
    """An address of the loopback that no other process of tests has: the server takes no port that is free at first only."""
    high, low = divmod(os.getpid() % (250 * 250), 250)
    return f"127.53.{high}.{low + 1}"


def _outside() -> list[str]:
    return [f"{name}. 5 IN {type_} {data}" for (name, type_), datas in OUTSIDE.items() for data in datas]


def _kubeconfig(access: Access) -> dict[str, Any]:
    ca = base64.b64encode(access.ca.encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"https://{access.address}", "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"token": access.token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }


def _wait(servers: Iterable[Server]) -> None:
    """Until the zone of the cluster is there at all of them."""
    end = time.monotonic() + WAIT_SECONDS
    for server in servers:
        while True:
            with contextlib.suppress(OSError):
                if over_tcp(server, [(f"dns-version.{DOMAIN}", "TXT")])[0][0] == "NOERROR":
                    break
            if time.monotonic() > end:
                raise TimeoutError("CoreDNS does not answer")
            time.sleep(0.1)


def over_tcp(server: Server, questions: Iterable[Question]) -> list[Fact]:
    """The answers of a server, one after the other over one connection. OSError when there are none."""
    with socket.create_connection(server, WAIT_SECONDS) as connection, connection.makefile("rb") as stream:

        def ask(message: bytes) -> bytes:
            connection.sendall(struct.pack("!H", len(message)) + message)
            data = stream.read(2)
            if not data:
                raise ConnectionResetError("closed by the server")
            return stream.read(int.from_bytes(data, "big"))

        return [asked(ask, question) for question in questions]


def asked(ask: Callable[[bytes], bytes], question: Question) -> Fact:
    """What a server answers that is asked by bytes."""
    query = dns.message.make_query(question[0], question[1])
    found = dns.message.from_wire(ask(query.to_wire()))
    assert query.is_response(found), found
    sections = (found.answer, found.authority, found.additional)
    return [dns.rcode.to_text(found.rcode()), bool(found.flags & dns.flags.AA), *map(_lines, sections)]


def _lines(section: Iterable[dns.rrset.RRset]) -> list[str]:
    return sorted(SERIAL.sub(r"\1 #", line.lower()) for rrset in section for line in rrset.to_text().split("\n"))
