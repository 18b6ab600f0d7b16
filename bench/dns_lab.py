"""Names in a lab, as pods see them: questions that a resolver sends for one name, connection tracking, the end of the server's process,
and what the server adds to the start of a lab."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.common import Lab, Row, lab, quiet
from bench.judging import MIXED
from podplane.kubeapi.errors import ApiError
from podplane.lab.folder import Folder
from podplane.model.config import NAME_SERVER_PORT
from podplane.nameserver.keeper import MODULE

TOOL = str(Path(__file__).with_name("dns_tool.py").resolve())
SERVER, NAME = "10.96.0.10", "kubernetes.default.svc.cluster.local"
POD, NODE = "echo-node1-1", "at-node1"
OUTSIDE = "db.corp.example"
CONFIG = f"hosts: {{192.0.2.7: [{OUTSIDE}], 2001:db8::7: [{OUTSIDE}]}}\n"
QUESTIONS, RATE, SECONDS, KILL_AFTER = 10_000, 1_000, 8.0, 3.0
WAIT_TRIES = 100
SETTLED_SECONDS, IDLE_WINDOWS, IDLE_SECONDS, IDLE = 3.0, 7, 6.0, 0.1
UP_ROUNDS, UP_MUST = 11, 50.0
LOOKUP = """
#include <netdb.h>
#include <stddef.h>
int main(int count, char **words) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    return count != 2 || getaddrinfo(words[1], NULL, &hints, &found) != 0;
}
"""
"""For musl, which has no getent."""
WITHOUT = """
import asyncio, podplane.nameserver.keeper as keeper
async def run(self):
    self.ready.set()
    await asyncio.Event().wait()
keeper.NameServer.run = run
keeper.spawn = lambda: None
from podplane.cli.main import main
main()
"""
"""podplane whose labs start no name server, and do not wait for one."""


def rows(short: bool) -> list[Row]:
    """All of it."""
    found = []
    with lab() as one:
        quiet()
        one("up", "--nodes", "2", "--pods-per-node", "1")
        spec = {"nodeName": "node1", "hostNetwork": True}
        container = {
            "name": "main",
            "image": "host/sleep",
            "command": ["sleep", "infinity"],
            "securityContext": {"privileged": True},
        }
        one.api.create("pods", "default", {"metadata": {"name": NODE}, "spec": {**spec, "containers": [container]}})
        for _ in one.api.poll("pods", "default", lambda pods: all(pod["status"]["phase"] == "Running" for pod in pods), 10):
            pass
        _wait_for_server(one)
        found += [_tracked(1_000 if short else QUESTIONS), *_lookups(one), _idle(one, 1 if short else IDLE_WINDOWS)]
        found.append(_killed(one, 1 if short else 3))
    return [*found, _added_to_up(2 if short else UP_ROUNDS)]


def _wait_for_server(one: Lab) -> None:
    """Until node1's own server answers its pods: a lab is up before that, and others' servers answer meanwhile, by the Service."""
    for _ in range(WAIT_TRIES):
        with contextlib.suppress(ApiError):
            one.api.of_node_raw("node1", NAME_SERVER_PORT, "ready")
            break
        time.sleep(0.1)
    else:
        raise RuntimeError("the name server is not ready")
    time.sleep(SETTLED_SECONDS)


def _exec(pod: str, *words: str) -> list[str]:
    """A command in a pod."""
    return [sys.executable, "-m", "podplane", "exec", pod, "--", *words]


def _tool(pod: str, *words: object) -> str:
    command = _exec(pod, sys.executable, TOOL, *map(str, words))
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def _tracked(count: int) -> Row:
    """Entries that questions from a pod leave in its node."""
    before = int(_tool(NODE, "tracked"))
    answered = int(_tool(POD, "many", SERVER, NAME, count))
    after = int(_tool(NODE, "tracked"))
    what = f"names: conntrack entries of {count:,} questions from a pod"
    return Row(what, [float(max(after - before, 0))], "", 0.0, note=f"{answered:,} were answered")


def _lookups(one: Lab) -> Iterator[Row]:
    """Questions for one name from outside of the cluster, by the resolvers of C libraries, with three search domains."""
    if not one.api.objects("configmaps", "kube-system", fieldSelector="metadata.name=podplane-dns"):
        one.api.create("configmaps", "kube-system", {"metadata": {"name": "podplane-dns"}, "data": {}})
    one.api.patch("configmaps", "kube-system", "podplane-dns", {"data": {"config.yaml": CONFIG}})
    time.sleep(0.5)
    yield _lookup("glibc's", ["getent", "ahosts", OUTSIDE])
    if shutil.which("musl-gcc"):
        with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
            program = Path(folder, "lookup")
            command = ["musl-gcc", "-static", "-x", "c", "-o", str(program), "-"]
            subprocess.run(command, input=LOOKUP.encode(), check=True)
            yield _lookup("musl's", [str(program), OUTSIDE])


def _lookup(whose: str, command: list[str]) -> Row:
    seeing = subprocess.Popen(_exec(POD, sys.executable, TOOL, "seen", "2"), stdout=subprocess.PIPE, text=True)
    assert seeing.stdout
    seeing.stdout.readline()
    subprocess.run(_exec(POD, *command), check=True, capture_output=True, timeout=60)
    lines = seeing.communicate(timeout=60)[0].splitlines()
    most = max(Counter(line.split()[1] for line in lines).values())
    note = ", ".join(lines) if most > 1 else f"{len(lines)} in all"
    return Row(f"names: questions of each type for one outside name by {whose} resolver", [float(most)], "", 1.0, note=note)


def _idle(one: Lab, windows: int) -> Row:
    """Percent of a core that the server takes while nobody asks: the nodes look whether it lives."""
    pid = name_server(one)
    time.sleep(SETTLED_SECONDS)
    return Row("names: CPU while nobody asks", [_percent(pid, IDLE_SECONDS) for _ in range(windows)], "%", IDLE)


def _percent(pid: int, seconds: float) -> float:
    """What it takes of a core, for so long."""
    before = _on_cpu(pid)
    time.sleep(seconds)
    return (_on_cpu(pid) - before) / seconds * 100


def _on_cpu(pid: int) -> float:
    """Seconds that its threads have run (proc(5): nanoseconds in `schedstat`)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _killed(one: Lab, rounds: int) -> Row:
    """Questions without an answer, when the process is killed while they come."""
    samples = []
    for _ in range(rounds):
        asking = subprocess.Popen(
            _exec(POD, sys.executable, TOOL, "steady", SERVER, NAME, str(RATE), str(SECONDS)), stdout=subprocess.PIPE, text=True
        )
        time.sleep(KILL_AFTER)
        os.kill(name_server(one), signal.SIGKILL)
        samples.append(float(asking.communicate(timeout=60)[0]))
    return Row(f"names: questions without an answer, of {RATE:,} a second, when the server is killed", samples, "", 0.0)


def name_server(one: Lab) -> int:
    """The process of a lab's name server."""
    holder = Folder(one.name).holder()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == holder and MODULE.encode() in (path / "cmdline").read_bytes().split(b"\0"):
                return int(path.name)
    raise RuntimeError("the lab has no name server")


def _added_to_up(rounds: int) -> Row:
    """Milliseconds that a lab of three nodes with two pods each takes longer to start than one without a name server."""
    programs = ["-m", "podplane"], ["-c", WITHOUT]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for program, own in zip(programs, times, strict=True):
            with lab():
                quiet()
                began = time.monotonic()
                command = [sys.executable, *program, "up", "--nodes", "3", "--pods-per-node", "2"]
                subprocess.run(command, capture_output=True, check=True, timeout=120)
                own.append((time.monotonic() - began) * 1000)
    with_it, without = times
    note = f"{median(with_it):.0f} beside {median(without):.0f} ms, medians of {rounds}"
    return Row("names: added to the start of a lab", [median(with_it) - median(without)], "ms", UP_MUST, note=note, work=MIXED)
