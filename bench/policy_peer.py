"""kube-router beside podplane, where there is one on the PATH with `iptables` and `ipset`: a policy comes, a label changes, until packets
tell it.

Two labs of one node have the same pods and policies. In one of them podplane's agent is told of no policy, and kube-router enforces them in
the node's network. A time begins when the write is sent to the API, and ends with the first datagram of those that go otherwise from
then on; a pod sends another one each 2 ms.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench import in_node
from bench.common import Lab, Row, lab, quiet
from podplane.kubeapi.http import HttpClient

TOOL = str(Path(__file__).with_name("policy_tool.py").resolve())
POLICIES, OTHERS, CHANGES = 500, 20, 3
WAIT_SECONDS, STAYS_SECONDS = 120.0, 8.0
CLIENT, SERVER, PORT = "echo-node1-1", "echo-node1-2", 8080
WITHOUT = """
from podplane.policy.index import PolicyIndex
real = PolicyIndex.set_policy
PolicyIndex.set_policy = lambda self, path, policy: real(self, path, None)
from podplane.cli.main import main
main()
"""
"""podplane whose agents are told of no policy."""
Times = dict[str, list[float]]


def run(short: bool) -> list[Row]:
    """Both, one after the other; nothing without kube-router, or without root."""
    program = shutil.which("kube-router")
    if program is None or os.getuid() != 0 or not (shutil.which("iptables") and shutil.which("ipset")):
        return []
    policies, changes = (20, 1) if short else (POLICIES, CHANGES)
    ours = _measure(["-m", "podplane"], policies, changes, lambda one: contextlib.nullcontext())
    theirs = _measure(["-c", WITHOUT], policies, changes, lambda one: in_node.running(one, _command(program)))
    of = f"{policies} policies of {OTHERS} pods of a node"
    return [_row(f"kube-router, {of}: {what}", theirs[what], ours[what]) for what in ours]


def _row(what: str, theirs: list[float], ours: list[float]) -> Row:
    note = f"podplane: {median(ours):.1f} ms; {median(theirs) / median(ours):,.0f} times as long"
    return Row(f"{what}, from the write until a packet tells it", theirs, "ms", note=note)


def _command(program: str) -> list[str]:
    only = ["--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false"]
    return [program, f"--kubeconfig={in_node.KUBECONFIG}", "--hostname-override=node1", "--health-port=0", *only]


def _measure(program: list[str], policies: int, changes: int, enforced: Callable[[Lab], Any]) -> Times:
    """Milliseconds of each kind of change."""
    with lab() as one:
        quiet()
        command = [
            sys.executable,
            *program,
            "up",
            "--nodes",
            "1",
            "--pods-per-node",
            str(OTHERS),
            "--cluster-cidr",
            "10.244.0.0/16",
        ]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        one.api.patch("pods", "default", SERVER, {"metadata": {"labels": {"server": "yes"}}})
        for number in range(policies):
            one.api.create("networkpolicies.networking.k8s.io", "default", _other(number))
        with enforced(one), _asking(one.api) as asking:
            asking.wait_for("reached")
            return _changes(one.api, asking, changes)


def _changes(api: HttpClient, asking: Asking, changes: int) -> Times:
    """A policy comes and goes, then a label of the client, which the policy asks for."""
    times: Times = {"a policy comes": [], "a policy goes": [], "a label goes": [], "a label comes": []}
    kind = "networkpolicies.networking.k8s.io"

    def timed(what: str, outcome: str, write: Callable[[], object]) -> None:
        began = time.monotonic()
        write()
        times[what].append((asking.wait_for(outcome, began) - began) * 1000)

    for _ in range(changes):
        timed("a policy comes", "denied", lambda: api.create(kind, "default", _policy()))
        timed("a policy goes", "reached", lambda: api.delete(kind, "default", "measured"))
    api.patch("pods", "default", CLIENT, {"metadata": {"labels": {"friend": "yes"}}})
    api.create(kind, "default", _policy())
    time.sleep(STAYS_SECONDS)
    for _ in range(changes):
        timed(
            "a label goes", "denied", lambda: api.patch("pods", "default", CLIENT, {"metadata": {"labels": {"friend": None}}})
        )
        timed(
            "a label comes",
            "reached",
            lambda: api.patch("pods", "default", CLIENT, {"metadata": {"labels": {"friend": "yes"}}}),
        )
    return times


def _policy() -> dict[str, Any]:
    """Friends only."""
    peers = [{"podSelector": {"matchLabels": {"friend": "yes"}}}]
    spec = {"podSelector": {"matchLabels": {"server": "yes"}}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]}
    return {"metadata": {"name": "measured"}, "spec": spec}


def _other(number: int) -> dict[str, Any]:
    """One more policy of the node's other pods, which lets all of them send."""
    peers = [{"podSelector": {"matchLabels": {"run": "echo"}}}]
    rule = {"from": peers, "ports": [{"protocol": "UDP", "port": PORT}, {"protocol": "TCP", "port": 1 + number}]}
    others = {"matchLabels": {"run": "echo"}, "matchExpressions": [{"key": "server", "operator": "DoesNotExist"}]}
    spec = {"podSelector": others, "policyTypes": ["Ingress"], "ingress": [rule]}
    return {"metadata": {"name": f"other-{number}"}, "spec": spec}


class Asking:
    """A pod that asks another one all the time. What it sees is in force once it stayed so: a program may bring tables up to date twice."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._seen = process, list[tuple[float, str]]()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            when, found = line.split()
            self._seen.append((float(when), found))

    def wait_for(self, outcome: str, since: float = 0.0) -> float:
        """When it became so for good after `since` (`time.monotonic`). RuntimeError when it did not."""
        end = time.monotonic() + WAIT_SECONDS
        while (now := time.monotonic()) < end:
            when, found = self._seen[-1] if self._seen else (now, "")
            if found == outcome and when >= since and now - when > STAYS_SECONDS:
                return when
            time.sleep(0.1)
        raise RuntimeError(f"no pod was {outcome}")


@contextlib.contextmanager
def _asking(api: HttpClient) -> Iterator[Asking]:
    ip = api.get("pods", "default", SERVER)["status"]["podIP"]
    command = [sys.executable, "-m", "podplane", "exec", "-i", CLIENT, "--", sys.executable, TOOL, ip, str(PORT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Asking(process)
        finally:
            process.terminate()
