"""What is wrong with the ways to peers: those that are lost, and those that lose much; and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from podplane.model.answers import PeerProblem
from podplane.model.config import UNDERLAY_MTU
from podplane.model.paths import OVERLAY
from podplane.model.words import listed
from podplane.probes.table import Row, State, Table

LOSSY, ENOUGH, LEAST = 0.05, 16, 3
"""A way loses much when such a part of its last probes was lost, of so many at least, and so often, not all at one time."""


def problems(
    table: Table,
    carried_in: Callable[[str], str],
    not_ready: Collection[str],
    withdrawn: Collection[str],
    now: float,
    takes: Callable[[str], int] = lambda peer: 0,
) -> list[PeerProblem]:
    """Of each peer and backend one, by name: what is lost goes before what is lossy. `carried_in` says of a backend what its packets are to
    the network between nodes, `takes` of a peer `PeerProblem.takes`."""
    found = []
    for (peer, backend), rows in _by_backend(table.rows).items():
        lost = [row for row in rows if row.state is State.LOST]
        bad = lost or [row for row in rows if _is_lossy(row)]
        if bad:
            found.append(
                PeerProblem(
                    peer=peer,
                    backend=backend,
                    families=[] if len(bad) == len(rows) else [f"IPv{row.path.version}" for row in bad],
                    underlay=table.below(bad[0]).value,
                    carried_in=carried_in(backend),
                    loss=1.0 if lost else max(row.loss for row in bad),
                    age=now - min(row.since for row in lost) if lost else 0.0,
                    is_not_ready=peer in not_ready,
                    is_withdrawn=peer in withdrawn,
                    takes=takes(peer),
                )
            )
    return sorted(found, key=lambda one: (one.loss < 1, one.peer, one.backend))


def _by_backend(rows: Iterable[Row]) -> Mapping[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.path.layer == OVERLAY:
            found.setdefault((row.path.peer, row.path.backend), []).append(row)
    return found


def _is_lossy(row: Row) -> bool:
    return row.state is State.REACHED and row.sent >= ENOUGH and row.loss >= LOSSY and row.times_lost >= LEAST


def sentence(one: PeerProblem) -> str:
    """What a node says of it itself."""
    if one.loss < 1:
        return f"{one.loss:.0%} of the probes to {one.peer} are lost{where(one)}"
    return f"{one.peer} is not reached{where(one)}"


def where(one: PeerProblem) -> str:
    """The end of a sentence: over which way it is not reached, over which it is, and what to look at."""
    families = f" by {listed(one.families)}" if one.families else ""
    over = f" over {one.backend}{families}"
    if one.loss < 1:
        return over
    if one.is_withdrawn:
        return f"{over}, and is not ready: its routes are withdrawn"
    if one.takes:
        return f"{over}: its Node says that it takes packets of at most {one.takes} bytes ({UNDERLAY_MTU})"
    if one.underlay == State.LOST.value:
        return f"{over}, nor over the underlay"
    if one.underlay != State.REACHED.value:
        return over
    what = f"is {one.carried_in} filtered?" if one.carried_in else "are packets with addresses of pods dropped on the way?"
    return f"{over}, but over the underlay: {what}"
