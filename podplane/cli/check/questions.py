"""Probes, and questions about names, put to the probers that are to send them; answers by what was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from podplane.cli.check import sessions
from podplane.cli.check.names import Lookup
from podplane.cli.check.patience import patient
from podplane.cli.check.promises import Probe
from podplane.lab import underlay

START_SECONDS = 30.0
"""For all probers to begin."""
PROBE_SECONDS, AGAIN_SECONDS, DENIED_SECONDS = 1.5, 1.2, 0.4
"""How long a probe waits for its answer: TCP sends its first packet again after 1 s; and for one that should not come."""
SECONDS_A_PROBE = 0.3
"""How long an answer to many probes may take, at the very worst: nobody answers, and 16 wait at one time."""
T = TypeVar("T", Probe, Lookup)
Answers = dict[Probe, sessions.Answer]
Ask = Callable[[Iterable[Probe], float], Answers]
"""Sends probes that wait for so many seconds; what became of each."""


def probe(
    found: Mapping[str, sessions.Prober], probes: Iterable[Probe], patience: float = PROBE_SECONDS
) -> dict[Probe, sessions.Answer]:
    """What became of each probe, which waits for so many seconds; of those whose source gave no answer, nothing."""
    return _asked(found, probes, _question, patience)


def look_up(found: Mapping[str, sessions.Prober], asked: Iterable[Lookup], patience: float) -> dict[Lookup, sessions.Answer]:
    """The same for questions about names."""
    return _asked(found, asked, Lookup.probe, patience)


def _asked(
    found: Mapping[str, sessions.Prober], probes: Iterable[T], question: Callable[[T], dict[str, Any]], patience: float
) -> dict[T, sessions.Answer]:
    by_source: dict[str, list[T]] = defaultdict(list)
    for one in probes:
        if not found[one.source].failure:
            by_source[one.source].append(one)
    if not by_source:
        return {}
    seconds = patient(patience)
    questions = {
        source: {"do": "probe", "probes": [question(p) for p in own], "seconds": seconds} for source, own in by_source.items()
    }
    longest = max(len(own) for own in by_source.values())
    answers = sessions.ask_all(found, questions, patient(START_SECONDS + SECONDS_A_PROBE * longest))
    return {
        one: answer
        for source, reply in answers.items()
        for one, answer in zip(by_source[source], reply["answers"], strict=True)
    }


def _question(probe: Probe) -> dict[str, Any]:
    protocol = "http" if (probe.target, probe.protocol) == (underlay.OUTSIDE, "tcp") else probe.protocol
    return {"protocol": protocol, "ip": probe.ip, "port": probe.port, "size": probe.size}
