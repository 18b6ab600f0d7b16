"""Pods come and go while another program commits nf_tables 100 times a second: does every ADD succeed?

The agent runs as in production, over the real kernel in a network namespace of its own, among enough Services that reading its tables takes
a while. The other program is a process of its own with a table of its own, and its messages are packed by `bench.factor`.

`python -m bench.foreign_commits commit` is that program: it commits until its standard input ends, and writes a byte after each commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from bench import factor
from bench.agents import Cluster, OneAgent, cancelled, make_uplink, pod
from bench.common import Row
from bench.services import ENDPOINTS, endpoints, measured, service
from podplane.cni.network import Attachment, NetworkError
from podplane.kernel.namespace import Workers

ADDS, AT_ONCE, SERVICES = 240, 2, 1_000
STAYING = 20
"""So many pods stay when others come."""
COMMITS_A_SECOND = 100
TABLE, MAP = "foreign", "ports"


def run(short: bool) -> list[Row]:
    """How many ADDs fail, in several runs."""
    services, rounds = (200, 1) if short else (SERVICES, 3)
    runs = [measured("bench.foreign_commits", services) for _ in range(rounds)]
    rate = min(found["commits a second"] for found in runs)
    what = (
        f"{ADDS} ADDs among {services:,} Services × {ENDPOINTS} endpoints, another program commits nf_tables meanwhile: failed"
    )
    return [Row(what, [found["failed"] for found in runs], "ADDs", 0, note=f"at least {rate:.0f} commits a second")]


# In the namespace.


@contextlib.contextmanager
def other_program(found: dict[str, float]) -> Iterator[Callable[[], int]]:
    """Another program that commits meanwhile, and how often it did so far; how often it did a second is in `found` afterwards."""
    command = [sys.executable, "-m", "bench.foreign_commits", "commit"]
    began, count = time.monotonic(), 0
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)

    def committed() -> int:
        nonlocal count
        while written := process.stdout.read(1 << 16):  # type: ignore[union-attr]  # it has one
            count += len(written)
        return count

    try:
        yield committed
        found["commits a second"] = committed() / (time.monotonic() - began)
    finally:
        process.kill()
        process.wait()


def commit_until_input_ends() -> None:
    """Add an element to a map of one's own, again and again, and say so each time."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, factor.NETLINK_NETFILTER)
    factor.send_all(netlink, [factor.map_of_ports(TABLE, MAP)])
    began, count = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], max(0.0, began + count / COMMITS_A_SECOND - time.monotonic()))[0]:
        factor.send_all(netlink, [factor.one_element(TABLE, MAP, count)])
        count += 1
        os.write(1, b".")


async def come(agent: OneAgent, requests: list[Attachment], going: asyncio.Queue[Attachment]) -> list[str]:
    """Attach pods, the next one as soon as the one before is there; why any of them could not be."""
    failures = []
    for request in requests:
        try:
            await agent.add(request)
        except NetworkError as error:
            failures.append(str(error))
        going.put_nowait(request)
    return failures


async def leave(agent: OneAgent, going: asyncio.Queue[Attachment]) -> None:
    """Detach pods, until cancelled, but for the latest."""
    while True:
        await asyncio.sleep(0.001)
        if going.qsize() > STAYING:
            await agent.delete(going.get_nowait())


async def measure(services: int) -> dict[str, float]:
    """The failures, and how often the other program committed."""
    agent, workers = OneAgent(), Workers()
    await agent.start(Cluster(services=map(service, range(services)), slices=map(endpoints, range(services))))
    going: asyncio.Queue[Attachment] = asyncio.Queue()
    pods = [pod(number, workers) for number in range(ADDS)]
    running, leaving = asyncio.create_task(agent.run()), asyncio.create_task(leave(agent, going))
    found: dict[str, float] = {}
    with other_program(found):
        came = await asyncio.gather(*(come(agent, pods[first::AT_ONCE], going) for first in range(AT_ONCE)))
    failures = [why for some in came for why in some]
    await cancelled(leaving)
    await cancelled(running)
    for why in failures[:3]:
        print(why, file=sys.stderr)
    return {"failed": float(len(failures)), **found}


def main(words: list[str]) -> None:
    """In the namespace: the figures as JSON; or the other program."""
    if words == ["commit"]:
        commit_until_input_ends()
    else:
        make_uplink()
        print(json.dumps(asyncio.run(measure(int(words[0])))))


if __name__ == "__main__":
    main(sys.argv[1:])
