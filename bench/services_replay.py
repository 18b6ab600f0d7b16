"""The floor under filling: the transactions of an agent that fills an empty kernel, sent again from bytes into another empty namespace."""

from __future__ import annotations

import asyncio
import json
import socket
import sys

from bench import factor
from bench.agents import Cluster, OneAgent, make_uplink, recorded
from bench.services import fill
from podplane.kernel.namespace import NetworkNamespace, Workers


async def transactions(count: int) -> tuple[list[bytes], list[bytes]]:
    """What an agent sends: at its start, and to fill the kernel with so many Services."""
    with recorded() as sent:
        agent = OneAgent()
        await agent.start(Cluster())
        started = len(sent)
        await fill(agent, count)
        return sent[:started], sent[started:]


def replay(start: list[bytes], filling: list[bytes]) -> float:
    """Seconds in which the kernel takes the second part, after the first one, in a namespace that has nothing."""
    if not filling:
        raise RuntimeError("no transaction was recorded: does bench.agents still look where the agent sends?")
    workers = Workers(1)
    with NetworkNamespace.create(workers) as empty:
        netlink = empty.run(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, factor.NETLINK_NETFILTER)
        factor.send_all(netlink, start)
        seconds = factor.send_all(netlink, filling)
        netlink.close()
    workers.close()
    return seconds


def main() -> None:
    """In the namespace: the figure as JSON."""
    make_uplink()
    print(json.dumps({"replayed": replay(*asyncio.run(transactions(int(sys.argv[1]))))}))


if __name__ == "__main__":
    main()
