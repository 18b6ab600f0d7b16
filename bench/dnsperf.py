"""Runs of dnsperf against a server of this machine: rates and latencies."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from bench.dns_servers import CLIENT_CPU, LOCALHOST, cpu

SOCKETS, OUTSTANDING = 4, 100
RATE = re.compile(r"Queries per second:\s+([\d.]+)")
LOST = re.compile(r"Queries lost:\s+(\d+)")
FAILED = re.compile(r"Response codes:.*(SERVFAIL|REFUSED|FORMERR)")
LATENCY = re.compile(r"^> \w+ \S+ \S+ ([\d.]+)$", re.MULTILINE)
ALLOWED_LOST = 0.001


@dataclass(frozen=True)
class Latency:
    """Milliseconds that half of the answers, and 99 of 100, took at the most."""

    half: float
    slowest: float


def rate(port: int, questions: Path, seconds: float) -> float:
    """Answers a second, as many as it can. RuntimeError when questions were lost, or answered with an error of the server."""
    found = _run(port, questions, seconds, "-q", str(OUTSTANDING))
    answers = float(RATE.findall(found)[0])
    if int(LOST.findall(found)[0]) > ALLOWED_LOST * answers * seconds:
        raise RuntimeError(found)
    return answers


def latency(port: int, questions: Path, seconds: float, at: float) -> Latency:
    """At so many questions a second."""
    found = _run(port, questions, seconds, "-Q", str(round(at)), "-v")
    cuts = quantiles([float(one) * 1000 for one in LATENCY.findall(found)], n=100)
    return Latency(cuts[49], cuts[98])


def once(port: int, questions: Path) -> float:
    """Answers a second when each question is asked once."""
    return float(RATE.findall(_run(port, questions, 60.0, "-n", "1", "-q", str(OUTSTANDING)))[0])


def _run(port: int, questions: Path, seconds: float, *options: str) -> str:
    command = ["taskset", "--cpu-list", str(cpu(CLIENT_CPU)), "dnsperf", "-s", LOCALHOST, "-p", str(port), "-d", str(questions)]
    command += ["-l", str(seconds), "-c", str(SOCKETS), "-T", "1", *options]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    if FAILED.search(found):
        raise RuntimeError(found)
    return found


def written(folder: Path, name: str, lines: Iterable[str]) -> Path:
    """A file of questions."""
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
