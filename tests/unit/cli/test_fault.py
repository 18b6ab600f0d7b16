"""`podplane fault` without a node."""

from __future__ import annotations

import pytest

from podplane.cli.fault import fault
from podplane.lab.errors import LabError
from podplane.lab.faults.table import FAULTS, Fault


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "podplane fault NODE$"),
        ("--clear", "podplane fault NODE --clear$"),
        ("--uplink-down", "podplane fault NODE --uplink-down$"),
        ("--cut-api node1", r"podplane fault NODE --cut-api \[[A-Z]+\]; 'node1' is the value of --cut-api$"),
    ],
)
def test_what_to_write_is_said(words: str, why: str) -> None:
    with pytest.raises(LabError, match=f"^say on which node, before the option: {why}"):
        fault.main(words.split(), standalone_mode=False)


def test_what_to_write_names_the_lab() -> None:
    with pytest.raises(LabError, match=r"podplane fault --name other NODE --clear$"):
        fault.main(["--name", "other", "--clear"], standalone_mode=False)


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.name)
def test_hints_lead_to_the_lab_of_the_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], row: Fault
) -> None:
    monkeypatch.setattr("podplane.cli.fault.connect", lambda folder: None)
    monkeypatch.setattr("podplane.cli.fault._node", lambda client, name: {})
    monkeypatch.setattr("podplane.cli.fault._ask", lambda *words: "done")
    fault.main(["--name", "other", "node2", row.option], standalone_mode=False)
    said = capsys.readouterr().out
    assert "{" not in said
    assert said.count("`podplane ") == said.count(" --name other")
    assert ("undo: `podplane fault --name other node2 --clear`" in said) == bool(row.undo)
