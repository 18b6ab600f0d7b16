"""What a check prints: a matrix of pods, of nodes where there are many pods, failures in words, JSON."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from podplane.cli.check import promises, report
from podplane.cli.check.policies import POLICIES
from podplane.cli.check.promises import NO_NAT, REACH, Fate, Party, Probe, Verdict
from podplane.cli.check.report import Result

GOOD = {"ok": True, "seen": {}}
BAD = {"ok": False, "error": "no answer"}


def result(pods: list[Party], broken: set[tuple[str, str]] = frozenset()) -> Result:  # type: ignore[assignment]  # an empty set
    """A check of all ordered pairs, with these pairs broken."""
    probes = [Probe(REACH, a.name, b.name, "icmp", b.ips[0]) for a, b in promises.pairs(pods, True)]
    answers = {p: BAD if (p.source, p.target) in broken else GOOD for p in probes}
    verdict = Verdict(REACH, proved=len(probes) - len(broken))
    verdict.failures = [f for p in probes if (f := promises.judge(p, answers[p]))]
    return Result([verdict, Verdict(NO_NAT, proved=1)], pods, probes, answers, seconds=0.25)


def pods(nodes: int, each: int) -> list[Party]:
    return [Party(f"p{n}-{i}", "pod", f"node{n}", (f"10.{n}.0.{i}",)) for n in range(1, nodes + 1) for i in range(each)]


def test_a_matrix_of_pods_shows_who_does_not_reach_whom() -> None:
    assert report.matrix(result(pods(3, 1), {("p1-0", "p3-0")})) == [
        "       1 2 3",
        "1 p1-0 · ✓ ✗",
        "2 p2-0 ✓ · ✓",
        "3 p3-0 ✓ ✓ ·",
        "",
        "✓ all probes from the row's to the column's were answered   ✗ some were not   · not tried here",
    ]


def test_the_matrix_explains_its_signs_and_no_others() -> None:
    found = result(pods(2, 2))
    assert report.matrix(found)[-1] == "✓ all probes from the row's to the column's were answered   · not tried here"
    found.verdicts = [*found.verdicts, Verdict(POLICIES)]
    assert report.matrix(found)[-1].endswith("   · not tried here, or denied by policies")


def test_the_matrix_shows_what_policies_let_pass_and_what_they_stop() -> None:
    found = result(pods(2, 1))
    found.probes = []
    judged = Verdict(POLICIES, proved=4, stopped=3)
    judged.pairs = {
        ("p1-0", "p2-0"): Fate.PASSED | Fate.STOPPED,
        ("p2-0", "p1-0"): Fate.STOPPED,
        ("node1", "p2-0"): Fate.BROKEN,
    }
    found.verdicts = [judged]
    lines = report.matrix(found)
    assert lines[1:3] == ["1 p1-0 · o", "2 p2-0 – ·"]
    assert lines[-1] == "o policies let some pass, and stop the others   – policies stop all of them   · not tried here"
    assert "(4 of 4: 1 pass, 3 are stopped)" in report.as_text(found, colour=False)
    assert json.loads(report.as_json(found))["promises"][0]["stopped"] == 3
    judged.pairs["p2-0", "p1-0"] = Fate.STOPPED | Fate.BROKEN
    assert report.matrix(found)[2] == "2 p2-0 ✗ ·"


def test_many_pods_are_shown_as_nodes_in_natural_order() -> None:
    lines = report.matrix(result(pods(10, 2), {("p10-0", "p2-1")}))
    assert len(lines) == 11 + 2
    assert lines[1].split() == ["1", "node1", *["✓"] * 10]
    assert lines[10].split() == ["10", "node10", "✓", "✗", *["✓"] * 8]


def test_very_many_nodes_are_a_number_and_the_bad_pairs() -> None:
    lines = report.matrix(result(pods(33, 1), {("p1-0", "p33-0")}))
    assert lines == ["1,056 pairs of nodes, 1 with a failure\n  node1 → node33"]


def test_the_text_names_failures_and_sums_up() -> None:
    text = report.as_text(result(pods(2, 1), {("p1-0", "p2-0")}), colour=False)
    assert "✗ every pod reaches every other pod directly (ICMP, TCP)  (1 of 2)" in text
    assert "    p1-0 → p2-0 10.2.0.0 icmp: expected an answer, got no answer" in text
    assert text.endswith("1 of 2 promises is broken: 3 probes, 2 pods, 0.2 s.")


def test_the_counts_of_the_promises_add_up_to_the_total() -> None:
    found = result(pods(3, 2), {("p1-0", "p2-0"), ("p2-1", "p3-0")})
    text = report.as_text(found, colour=False)
    counts = [int(total) for _, total in re.findall(r"\((\d+) of (\d+)\)", text)]
    assert text.endswith(f": {sum(counts):,} probes, 6 pods, 0.2 s.")
    document = json.loads(report.as_json(found))
    assert document["probes"] == sum(row["probes"] for row in document["promises"]) == sum(counts)


def test_what_policies_deny_is_not_broken_and_is_told_with_what_denies_it() -> None:
    found = result(pods(2, 1))
    found.verdicts[0].denied.update({"default deny by default/none": 5, "a": 4, "b": 3, "c": 2, "d": 1})
    found.verdicts = [*found.verdicts, Verdict(promises.OUTSIDE, denied=Counter({"default deny by default/none": 14}))]
    text = report.as_text(found, colour=False)
    assert (
        "(ICMP, TCP)  (2 of 2; 5 not tried: default deny by default/none; 4 not tried: a; 3 not tried: b; 3 more are denied)"
        in text
    )
    assert "· pods reach outside, which sees their node's address  (14 not tried: default deny by default/none)" in text
    assert "2 of 3 promises are kept, and 1 not tried, as policies deny all of it: 3 probes" in text and found.ok
    row = json.loads(report.as_json(found))["promises"][-1]
    assert (row["ok"], row["probes"], row["denied"]) == (True, 0, {"default deny by default/none": 14})
    found.verdicts[-1].failures.append("no answer")
    assert not found.ok and "1 of 3 promises is broken" in report.as_text(found, colour=False)


def test_one_pod_is_no_plural() -> None:
    assert report.as_text(result(pods(1, 1)), colour=False).endswith(", 1 pod, 0.2 s.")


def test_many_failures_are_cut_in_text_and_whole_in_json() -> None:
    everyone = pods(5, 1)
    found = result(everyone, {(a.name, b.name) for a in everyone for b in everyone if a is not b})
    assert "    … and 10 more (--json has all)" in report.as_text(found, colour=False).splitlines()
    parsed = json.loads(report.as_json(found))
    assert not parsed["ok"]
    assert len(parsed["promises"][0]["failures"]) == 20
    assert parsed["promises"][1] == {
        "promise": NO_NAT,
        "text": promises.PROMISES[NO_NAT],
        "ok": True,
        "probes": 1,
        "failures": [],
    }


@pytest.mark.parametrize("colour", [True, False])
def test_colour_only_on_a_terminal(colour: bool) -> None:
    assert ("\033[32m✓" in report.as_text(result(pods(2, 1)), colour)) is colour


def test_pods_that_do_not_run_are_named() -> None:
    found = result(pods(2, 1))
    found.left_out = ["broken-1", "broken-2"]
    assert "Left out: broken-1, broken-2" in report.as_text(found, colour=False)
