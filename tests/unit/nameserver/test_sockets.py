"""The sockets of a process's nodes: each is answered, says which node it is, and is counted apart."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from podplane.dns import message as m
from podplane.dns.message import Answer, Query, name_of
from podplane.nameserver.answers import Answers
from podplane.nameserver.resolver import Client
from podplane.nameserver.sockets import Sockets, connections_within
from podplane.servers.dns_counts import Counts
from podplane.servers.dns_tcp import CONNECTIONS

WHO = m.HEADER.pack(7, m.RD, 1, 0, 0, 0) + m.written(name_of("id.server")) + m.TAIL.pack(m.TXT, m.CHAOS)
WEB = m.HEADER.pack(7, m.RD, 1, 0, 0, 0) + m.written(name_of("web.test")) + m.TAIL.pack(m.A, m.INTERNET)
FAMILIES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


class Nothing:
    """Every name exists, and has nothing."""

    def answer(self, query: Query, client: Client) -> Answer:
        return Answer(depends=("x",))


@pytest.mark.parametrize("ip", FAMILIES)
async def test_each_node_answers_at_both_protocols_by_its_name(ip: str) -> None:
    counts = Counts()
    answers = Answers(Nothing(), ["127.0.0.0/8"], counts)
    sockets, loop = Sockets(answers, counts), asyncio.get_running_loop()
    servers = []
    for node in ("node1", "node2"):
        listener = socket.create_server((ip, 0), family=FAMILIES[ip])
        at = listener.getsockname()
        bound = socket.socket(FAMILIES[ip], socket.SOCK_DGRAM)
        bound.bind(at)
        servers += [sockets.connections(node, listener), sockets.datagrams(node, bound)]
        with socket.socket(FAMILIES[ip], socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(at)
            for data in (WHO, WEB, WEB):
                udp.send(data)
                response = await asyncio.wait_for(loop.sock_recv(udp, 512), 20)
                assert (node.encode() in response) is (data is WHO)
        reader, writer = await asyncio.open_connection(*at[:2])
        for data in (WHO, WEB):
            writer.write(len(data).to_bytes(2, "big") + data)
            response = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert (node.encode() in response) is (data is WHO)
        writer.close()
    version = 4 if ip == "127.0.0.1" else 6
    assert {key: sum(lane.by_kind) for key, lane in counts.lanes.items()} == {
        (node, protocol, version): count for node in ("node1", "node2") for protocol, count in (("udp", 3), ("tcp", 2))
    }
    for server in servers:
        server.close()


def test_connections_leave_descriptors_for_all_else() -> None:
    assert [connections_within(one) for one in (64, 1024, 10**6, resource.RLIM_INFINITY)] == [32, 512, CONNECTIONS, CONNECTIONS]
