"""The backend of a lab is changed while a pod pings another one on another node 100 times a second, and talks to it over one connection."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import PODPLANE, Lab, Row, lab

TOOL = str(Path(__file__).with_name("live_stream.py"))
CHANGES = (("host-gw", "vxlan"), ("vxlan", "auto"), ("auto", "host-gw"))
LOST = 3.0
"""What must be: pings without an answer, of 100 a second."""
LEAST_SENT = 0.95
"""This part of the pings must have been sent in time for the figure to mean anything."""
LAST_SECONDS = 8.0
"""After a change was told: the former backend has gone after five seconds (agent.backends)."""


def run(short: bool) -> list[Row]:
    """Each change, several times, beside both IP versions at once."""
    rounds = 1 if short else 3
    lost: dict[tuple[str, str], list[float]] = {change: [] for change in CHANGES}
    sent = 0
    with lab() as one:
        one("up", "--nodes", "2", "--pods-per-node", "1")
        for change in itertools.islice(itertools.cycle(CHANGES), rounds * len(CHANGES)):
            found = _change(one, change[1])
            lost[change].append(max(each["lost"] for each in found))
            sent += sum(each["sent"] for each in found)
    return [
        Row(
            f"backend {before} → {after} under pings and a connection: pings lost, the worse IP version",
            lost[before, after],
            "pings",
            LOST,
            note=f"of {sent:,} in all changes; no connection broke",
        )
        for before, after in CHANGES
    ]


def _change(one: Lab, backend: str) -> list[dict[str, Any]]:
    """What each IP version saw of a change."""
    ips = [each["ip"] for each in one.api.get("pods", "default", "echo-node2-1")["status"]["podIPs"]]
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(_stream(ip)) for ip in ips]
        one("backend", "set", backend)
        with contextlib.suppress(subprocess.TimeoutExpired):
            streams[0].wait(LAST_SECONDS)  # it ends sooner only when it fails
        return [_result(stream) for stream in streams]


@contextlib.contextmanager
def _stream(ip: str) -> Iterator[subprocess.Popen[str]]:
    words = [*PODPLANE, "exec", "-i", "echo-node1-1", "--", sys.executable, TOOL, ip]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        if stream.stdout.readline() != "begun\n":
            raise RuntimeError(f"no connection to {ip}")
        yield stream


def _result(stream: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = stream.communicate(timeout=30)
    if stream.returncode:
        raise RuntimeError("a connection broke")
    found: dict[str, Any] = json.loads(said)
    if found["sent"] < LEAST_SENT * found["due"]:
        raise RuntimeError(f"the machine is too busy: {found['sent']} pings in the time of {found['due']}")
    return found
