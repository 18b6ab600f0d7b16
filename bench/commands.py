"""How long do commands take that people type all the time?"""

from __future__ import annotations

from bench.common import Row, lab
from bench.judging import PYTHON

MUST_SECONDS = 0.15
ROUNDS = 21


def run(short: bool) -> list[Row]:
    """`--help` and `status`, on a lab that runs."""
    rounds = 5 if short else ROUNDS
    with lab() as one:
        one("up", "--pods-per-node", "2")
        return [
            Row(f"podplane {word}", [one.timed(word) for _ in range(rounds)], must=MUST_SECONDS, work=PYTHON)
            for word in ("--help", "status")
        ]
