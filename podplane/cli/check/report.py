"""What a check found, as text with a matrix, or as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podplane.cli.characters import are_few
from podplane.cli.check import egress, names, policies, promises, services
from podplane.cli.check.promises import NO_NAT, REACH, Fate, Party, Probe, Verdict, judge
from podplane.cli.policy.show import legend
from podplane.model.words import counted

PROMISES = {**promises.PROMISES, **policies.PROMISES, **services.PROMISES, **names.PROMISES, **egress.PROMISES}

MATRIX_UP_TO = 16
"""Pods in the matrix; above, it shows nodes."""
FAILURES_SHOWN, DENIALS_SHOWN = 10, 3
GOOD, BAD, SOME, STOPPED, NONE = "✓", "✗", "o", "–", "·"


@dataclass(slots=True)
class Result:
    """Everything a check found."""

    verdicts: Sequence[Verdict]
    pods: Sequence[Party]
    probes: Sequence[Probe]
    answers: Mapping[Probe, Mapping[str, Any]]
    left_out: Sequence[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        """What was to be proved in all promises."""
        return sum(verdict.tried for verdict in self.verdicts)

    @property
    def ok(self) -> bool:
        """All promises are kept."""
        return all(verdict.ok for verdict in self.verdicts)


def as_json(result: Result) -> str:
    """One JSON object."""
    import json

    rows = [
        {
            "promise": v.promise,
            "text": PROMISES[v.promise],
            "ok": v.ok,
            "probes": v.tried,
            "failures": v.failures,
        }
        | ({"denied": dict(v.denied)} if v.denied else {})
        | ({"stopped": v.stopped} if v.stopped else {})
        | ({"untold": v.untold} if v.untold else {})
        | ({"not_tried": v.not_tried} if v.not_tried else {})
        for v in result.verdicts
    ]
    counts = {
        "probes": result.tried,
        "pods": len(result.pods),
        "left_out": list(result.left_out),
        "seconds": round(result.seconds, 2),
    }
    return json.dumps({"ok": result.ok, "promises": rows, **counts}, indent=2, ensure_ascii=are_few())


def as_text(result: Result, colour: bool) -> str:
    """Matrix, a line for each promise, failures in words, and a last line that sums up."""
    lines = [*matrix(result), ""] if result.pods else []
    for verdict in result.verdicts:
        lines.append(f"{_mark(verdict, colour)} {PROMISES[verdict.promise]}  ({_count(verdict)})")
        lines += [f"    {failure}" for failure in verdict.failures[:FAILURES_SHOWN]]
        if len(verdict.failures) > FAILURES_SHOWN:
            lines.append(f"    … and {len(verdict.failures) - FAILURES_SHOWN} more (--json has all)")
    if result.left_out:
        lines += ["", f"Left out: {', '.join(result.left_out)}"]
    found = f"{counted(result.tried, 'probe')}, {counted(len(result.pods), 'pod')}, {result.seconds:.1f} s"
    return "\n".join([*lines, "", f"{_summary(result.verdicts)}: {found}."])


def _summary(verdicts: Sequence[Verdict]) -> str:
    broken, all_ = sum(not one.ok for one in verdicts), counted(len(verdicts), "promise")
    if broken:
        return f"{broken} of {all_} {'is' if broken == 1 else 'are'} broken"
    denied, others = sum(one.is_denied for one in verdicts), sum(bool(one.not_tried) for one in verdicts)
    if not denied and not others:
        return f"All {all_} are kept"
    rest = [f"{denied} not tried, as policies deny all of it"] if denied else []
    rest += [f"{others} could not be tried here"] if others else []
    return f"{len(verdicts) - denied - others} of {all_} are kept, and {', '.join(rest)}"


def _mark(verdict: Verdict, colour: bool) -> str:
    mark = NONE if verdict.is_denied or verdict.not_tried else GOOD if verdict.ok else BAD
    return f"\033[{32 if verdict.ok else 31}m{mark}\033[0m" if colour and mark != NONE else mark


def _count(verdict: Verdict) -> str:
    count = f"{verdict.proved} of {verdict.tried}" if verdict.tried else ""
    count += f": {verdict.proved - verdict.stopped} pass, {verdict.stopped} are stopped" if verdict.stopped else ""
    count += f"; of {verdict.untold} more it can't be told, as nobody answers there" if verdict.untold else ""
    if verdict.not_tried:
        return f"not tried: {verdict.not_tried}"
    if not verdict.denied:
        return count or "nothing could prove it"
    shown = verdict.denied.most_common(DENIALS_SHOWN)
    more = verdict.denied.total() - sum(number for _, number in shown)
    rest = [f"{more} more are denied"] if more else []
    return "; ".join([*filter(None, (count,)), *(f"{number} not tried: {by}" for by, number in shown), *rest])


def matrix(result: Result) -> list[str]:
    """Who reaches whom: a row sends, a column answers. Pods by number, or nodes where there are many pods."""
    by_node = len(result.pods) > MATRIX_UP_TO
    label = {pod.name: pod.node if by_node else pod.name for pod in result.pods}
    names = sorted(dict.fromkeys(label.values()), key=lambda name: (len(name), name)) if by_node else list(label.values())
    cells = _cells(result, label)
    if len(names) > 2 * MATRIX_UP_TO:
        bad = [pair for pair, fate in cells.items() if Fate.BROKEN in fate]
        return [
            f"{counted(len(cells), 'pair')} of nodes, {len(bad)} with a failure"
            + "".join(f"\n  {a} → {b}" for a, b in bad[:FAILURES_SHOWN])
        ]
    width, cell = max(map(len, names)), max(len(str(len(names))), 1)
    number = len(str(len(names)))
    head = " " * (number + width + 2) + " ".join(str(i + 1).rjust(cell) for i in range(len(names)))
    marks = [[_cell(cells.get((source, to), Fate(0))) for to in names] for source in names]
    rows = [
        f"{str(i + 1).rjust(number)} {source.ljust(width)} " + " ".join(mark.rjust(cell) for mark in row)
        for i, (source, row) in enumerate(zip(names, marks, strict=True))
    ]
    used = {mark for row in marks for mark in row}
    return [head, *rows, "", legend({mark: text for mark, text in _marks(result).items() if mark in used})]


def _marks(result: Result) -> dict[str, str]:
    """What the signs of the matrix mean; in a lab two of them are about policies, which are tried there as users made them."""
    are_tried = any(verdict.pairs for verdict in result.verdicts)
    are_judged = any(verdict.promise == policies.POLICIES for verdict in result.verdicts)
    return {
        GOOD: "all probes from the row's to the column's were answered",
        BAD: "some were not" + (" as they should" if are_tried else ""),
        SOME: "policies let some pass, and stop the others",
        STOPPED: "policies stop all of them",
        NONE: "not tried here" + (", or denied by policies" if are_judged and not are_tried else ""),
    }


def _cell(fate: Fate) -> str:
    if Fate.BROKEN in fate:
        return BAD
    return {Fate.PASSED: GOOD, Fate.STOPPED: STOPPED, Fate.PASSED | Fate.STOPPED: SOME}.get(fate, NONE)


def _cells(result: Result, label: Mapping[str, str]) -> dict[tuple[str, str], Fate]:
    """(source, target) → what became of all that was sent between them."""
    cells: defaultdict[tuple[str, str], Fate] = defaultdict(lambda: Fate(0))
    for probe in result.probes:
        if probe.promise in (REACH, NO_NAT):
            is_broken = judge(probe, result.answers.get(probe))
            cells[label[probe.source], label[probe.target]] |= Fate.BROKEN if is_broken else Fate.PASSED
    for (source, target), fate in (pair for verdict in result.verdicts for pair in verdict.pairs.items()):
        if source in label and target in label:
            cells[label[source], label[target]] |= fate
    return cells
