"""Does a lab keep what it acknowledged, whatever process of it is killed at whatever moment? By hand; it runs for minutes.

    .venv/bin/python -m tools.storm [--kills 100] [--seconds 600] [--nodes 2] [--seed 1]

Writers create, change and delete ConfigMaps, and pods of a Deployment are deleted, while processes of the lab get SIGKILL: its PID 1, the
zygote, the name server, agents that are processes (with PODPLANE_TEST_UP_OPTIONS="--agents processes"), what runs in containers. When the
lab ended, `podplane up` brings it back. After each such end, and at the last, this must hold: every write that was acknowledged is there,
nothing came back whose deletion was acknowledged, no two pods have an address in common, and `up` never failed. At the end `podplane check`
must keep all promises. Ends with 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podplane.kubeapi.errors import AlreadyExists, ApiError, NotFound
from podplane.kubeapi.http import HttpClient
from podplane.lab.errors import LabError
from tests.e2e.conftest import Podplane, nothing_left

KILLS, SECONDS, NODES, SEED = 100, 600.0, 2, 1
WRITERS, OBJECTS = 3, 20
SHOWN_EVERY = 100
LONGEST_PAUSE = 1.5
"""Between two kills, in seconds."""
FIRST = 0.35
"""The share of kills that hit PID 1 of the lab; the others hit any of its processes."""
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 6,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "podplane/echo"}]},
        },
    },
}


@dataclass(slots=True)
class Record:
    """What one writer knows: the number that was acknowledged last of each object, None when its deletion was."""

    name: str
    acknowledged: dict[str, int | None] = field(default_factory=dict)
    asked: dict[str, int | None] = field(default_factory=dict)
    """What was sent and not answered, if anything was."""
    writes: int = 0

    def wrong(self, stored: dict[str, int]) -> Iterator[str]:
        """What is not as it was acknowledged."""
        for name, number in self.acknowledged.items():
            allowed = {number, self.asked[name]} if name in self.asked else {number}
            if stored.get(name) not in allowed:
                yield f"{name} is {stored.get(name)}, acknowledged was {number}, sent {self.asked.get(name, 'nothing more')}"


class Storm:
    """One lab, its writers, and the kills."""

    def __init__(self, lab: Podplane, chance: random.Random) -> None:
        self.lab, self.chance = lab, chance
        self.records = [Record(f"w{number}") for number in range(WRITERS)]
        self.killed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.ups = 0
        self._may_write = threading.Event()
        self._is_over = threading.Event()
        self._idle = threading.Barrier(WRITERS + 1)

    # Writers.

    def write(self, record: Record, seed: int) -> None:
        """Create, change and delete objects until it is over."""
        chance, client = random.Random(seed), None
        while not self._is_over.is_set():
            if not self._may_write.is_set():
                client = None
                self._idle.wait()  # all have stopped
                self._may_write.wait()
                continue
            try:
                client = client or self._client()
                self._one(client, record, f"{record.name}-{chance.randrange(OBJECTS)}", chance.random() < 0.2)
            except (ApiError, LabError, OSError):
                client = None
                time.sleep(0.01)

    def _client(self) -> HttpClient:
        return HttpClient(self.lab.folder.access(), 10)

    @staticmethod
    def _one(client: HttpClient, record: Record, name: str, deletes: bool) -> None:
        """One write, of which it is known whether it was acknowledged."""
        if name in record.asked:  # it is found out first what became of the last one
            try:
                found: int | None = int(client.get("configmaps", "default", name)["data"]["n"])
            except NotFound:
                found = None
            record.acknowledged[name] = found
            del record.asked[name]
        number = record.acknowledged.get(name)
        wanted = None if deletes and number is not None else record.writes
        record.asked[name] = wanted
        record.acknowledged.setdefault(name, None)
        body = {"data": {"n": str(wanted)}}
        with contextlib.suppress(AlreadyExists):
            if wanted is None:
                client.delete("configmaps", "default", name)
            elif number is None:
                client.create(
                    "configmaps", "default", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **body}
                )
            else:
                client.patch("configmaps", "default", name, body)
        record.acknowledged[name] = wanted
        del record.asked[name]
        record.writes += 1

    # Kills.

    def run(self, kills: int, seconds: float) -> None:
        """Kill so many, for so long at most; then look at everything."""
        threads = [threading.Thread(target=self.write, args=(one, n), daemon=True) for n, one in enumerate(self.records)]
        self._up()
        with contextlib.suppress(AlreadyExists):
            self._client().create("deployments.apps", "default", DEPLOYMENT)
        self._may_write.set()
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while self.killed.total() < kills and time.monotonic() < until:
            time.sleep(self.chance.random() * LONGEST_PAUSE)
            self._kill()
            if self.lab.folder.holder() is None:
                self._look()
            if self.killed.total() % SHOWN_EVERY == 0:
                print(f"{self.killed.total()} kills, {self.ups} times up, {len(self.wrong)} wrong", flush=True)
        self._look()
        self._check()
        self._is_over.set()
        self._may_write.set()

    def _kill(self) -> None:
        holder = self.lab.folder.holder()
        if holder is None:
            return
        others = sorted(descendants(holder))
        pid = holder if not others or self.chance.random() < FIRST else self.chance.choice(others)
        what = "PID 1" if pid == holder else title(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed[what] += 1
        if self.chance.random() < 0.3:
            with contextlib.suppress(ApiError, LabError, OSError):
                client = self._client()
                pods = [pod["metadata"]["name"] for pod in client.objects("pods", "default")]
                client.delete("pods", "default", self.chance.choice(pods), grace=0)
        time.sleep(0.05)  # the end of PID 1 is that of the lock, soon

    def _up(self) -> None:
        self.ups += 1
        done = self.lab("up", code=None)
        if done.returncode:
            self.wrong.append(f"up ended with {done.returncode}: {done.stderr.strip()[-300:]}")

    def _look(self) -> None:
        """Bring the lab back, and compare what is there with what was acknowledged, while nobody writes."""
        self._may_write.clear()
        self._idle.wait()
        if self.lab.folder.holder() is None:
            self._up()
        try:
            client = self._client()
            stored = {
                one["metadata"]["name"]: int(one["data"]["n"])
                for one in client.objects("configmaps", "default")
                if one["metadata"]["name"].startswith("w")
            }
            for record in self.records:
                self.wrong += record.wrong(stored)
            self.wrong += doubled(client.objects("pods"))
        except (ApiError, LabError) as error:
            self.wrong.append(f"nothing can be read: {error}")
        self._idle.reset()
        self._may_write.set()

    def _check(self) -> None:
        done = self.lab("check", code=None)
        if done.returncode:
            self.wrong.append(f"check ended with {done.returncode}: {done.stdout.strip()[-600:]}{done.stderr.strip()[-300:]}")


def doubled(pods: list[dict[str, Any]]) -> Iterator[str]:
    """The addresses that several pods have."""
    owners: dict[str, list[str]] = {}
    for pod in pods:
        ended = pod["status"].get("phase") in ("Succeeded", "Failed")
        if not pod["spec"].get("hostNetwork") and not ended:
            for one in pod["status"].get("podIPs", ()):
                owners.setdefault(one["ip"], []).append(pod["metadata"]["name"])
    yield from (f"{ip} is the address of {', '.join(names)}" for ip, names in owners.items() if len(names) > 1)


def descendants(process: int) -> set[int]:
    """All processes below this one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, left = set[int](), [process]
    while left:
        below = parents.get(left.pop(), [])
        found.update(below)
        left += below
    return found


def title(process: int) -> str:
    """What a process is, by its command line."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        for part, what in ((b"runtime.zygote", "zygote"), (b"nameserver", "name server"), (b"\0agent\0", "agent")):
            if part in words:
                return what
    return "container"


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.storm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home, nothing_left(Path(home)) as lab:
        lab("up", "--nodes", str(given.nodes))
        storm = Storm(lab, random.Random(given.seed))
        storm.run(given.kills, given.seconds)
    writes = sum(record.writes for record in storm.records)
    killed = ", ".join(f"{count} × {what}" for what, count in storm.killed.most_common())
    print(f"{storm.killed.total()} kills ({killed}), {storm.ups} times up, {writes} acknowledged writes")
    for one in storm.wrong:
        print(f"wrong: {one}")
    print(f"{len(storm.wrong)} wrong" if storm.wrong else "nothing was lost, no address was doubled, up never failed")
    return 1 if storm.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
