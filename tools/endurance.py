"""Does a lab grow? By hand; it runs for minutes.

    .venv/bin/python -m tools.endurance [--operations 12000] [--nodes 10] [--seed 1]

Objects come, change and go again, so that there are never more than some dozen: pods (started and deleted), Services, ConfigMaps and
NetworkPolicies. After each thousand operations it shows the resident memory, descriptors and threads of the lab's process. Ends with 1
when after the warm-up (a quarter of the operations) memory grew by more than 1 MB a thousand operations, or descriptors or threads by any:
what is there then is compared with what is there at the end, both with nothing under way.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from podplane.kubeapi.errors import AlreadyExists, NotFound
from podplane.kubeapi.http import HttpClient
from tests.e2e.conftest import Podplane, nothing_left

OPERATIONS, NODES, SEED = 12_000, 10, 1
SHOWN_EVERY = 1000
NAMES = 10
"""Of each kind: objects with these names come and go."""
QUIET_SECONDS = 45.0
"""What bursts took is given back by then, and pods have ended."""
MOST_GROWTH = 1024 * 1024
"""Bytes a thousand operations."""
CONTAINER = {"name": "main", "image": "podplane/echo"}
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "pods": ({"apiVersion": "v1", "kind": "Pod", "spec": {"terminationGracePeriodSeconds": 0, "containers": [CONTAINER]}}, 1),
    "services": ({"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}, 2),
    "configmaps": ({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b" * 500}}, 3),
    "networkpolicies.networking.k8s.io": (
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {"matchLabels": {"x": "y"}}}},
        1,
    ),
}
"""What is made, and how often beside the others."""


class Size(NamedTuple):
    """What a lab's process has."""

    memory: int
    descriptors: int
    threads: int


def size_of(process: int) -> Size:
    """The resident memory in bytes, open descriptors and threads of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return Size(int(fields["VmRSS"].split()[0]) * 1024, len(os.listdir(f"/proc/{process}/fd")), int(fields["Threads"]))


def operate(client: HttpClient, chance: random.Random, there: set[tuple[str, str]]) -> None:
    """One operation: make an object, or change or delete one that is there."""
    kind = chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    name = f"e{chance.randrange(NAMES)}"
    try:
        if (kind, name) not in there:
            client.create(kind, "default", {**KINDS[kind][0], "metadata": {"name": name}})
            there.add((kind, name))
        elif chance.random() < 0.5:
            client.patch(kind, "default", name, {"metadata": {"labels": {"n": str(chance.randrange(1000))}}})
        else:
            client.delete(kind, "default", name)
            there.discard((kind, name))
    except (AlreadyExists, NotFound):
        there.symmetric_difference_update({(kind, name)})  # a pod that was deleted is on its way out


def quiet(lab: Podplane, there: set[tuple[str, str]]) -> Size:
    """What the lab has when nothing is there, and nothing under way."""
    client = lab.api
    for kind, name in list(there):
        try:
            client.delete(kind, "default", name)
        except NotFound:
            pass
    there.clear()
    time.sleep(QUIET_SECONDS)
    return size_of(lab.folder.holder() or 0)


def told(what: str, size: Size) -> None:
    """Show it."""
    print(f"{what:>9}  {size.memory / 1024 / 1024:6.1f} MB  {size.descriptors} descriptors  {size.threads} threads", flush=True)


def run(lab: Podplane, operations: int, seed: int) -> list[str]:
    """Do them; what grew that should not."""
    chance, there = random.Random(seed), set[tuple[str, str]]()
    client, holder = lab.api, lab.folder.holder() or 0
    warm, after = Size(0, 0, 0), operations // 4
    for number in range(1, operations + 1):
        operate(client, chance, there)
        if number % SHOWN_EVERY == 0:
            told(str(number), size_of(holder))
        if number == after:
            warm = quiet(lab, there)
            client = lab.api
            told("quiet", warm)
    end = quiet(lab, there)
    told("quiet", end)
    growth = (end.memory - warm.memory) / ((operations - after) / 1000)
    print(f"{growth / 1024:.0f} KB a thousand operations since the warm-up")
    wrong = [f"memory grows by {growth / 1024:.0f} KB a thousand operations"] if growth > MOST_GROWTH else []
    both = {name: (getattr(warm, name), getattr(end, name)) for name in ("descriptors", "threads")}
    return wrong + [f"{name}: {before} became {after}" for name, (before, after) in both.items() if after > before]


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 when something grew."""
    parser = argparse.ArgumentParser(prog="python -m tools.endurance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home, nothing_left(Path(home)) as lab:
        lab("up", "--nodes", str(given.nodes), "--pods-per-node", "1")
        wrong = run(lab, given.operations, given.seed)
    print("; ".join(wrong) or "nothing grows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
