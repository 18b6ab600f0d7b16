"""`podplane fault` without a node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from podplane.cli.fault import fault
from podplane.lab.errors import LabError
from podplane.lab.faults.table import FAULTS, Fault
from podplane.lab.folder import Folder
from podplane.lab.spec import LabSpec
from podplane.model.config import ACTIVE_FAULTS


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


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("clear --isolate", "one thing at a time: write one option$"),
        ("clear --clear", "one thing at a time: write one option$"),
        ("node1 --isolate --loss 10%", "one thing at a time: write one option$"),
        ("node1 --one-way", r"--one-way goes with --loss SHARE \[--one-way\]$"),
        ("node1 --clear --unseen", r"--unseen goes with --mtu BYTES \[--unseen\]$"),
        ("node1 --isolate --one-way", "--isolate does not go with '--one-way': write --isolate$"),
        ("node1 --loss ten", "'ten' is no share of packets: write 10%, 0.5% or 100%$"),
    ],
)
def test_what_does_not_go_together_is_said(words: str, why: str) -> None:
    with pytest.raises(LabError, match=f"^{why}"):
        fault.main(words.split(), standalone_mode=False)


def test_options_have_other_names_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("podplane.cli.fault.connect", lambda folder: None)
    monkeypatch.setattr("podplane.cli.fault._node", lambda client, name: {})
    monkeypatch.setattr("podplane.cli.fault._ask", lambda folder, client, *words: asked.append(words))
    for words in ("node1 --link-down", "node1 --kill", "node2 --loss 10% --one-way", "node2 --cut-api", "node2 --cut-api 2m"):
        fault.main(words.split(), standalone_mode=False)
    assert asked == [
        ("node1", "uplink-down", ""),
        ("node1", "kill-agent", ""),
        ("node2", "loss", "10% --one-way"),
        ("node2", "cut-api", ""),
        ("node2", "cut-api", "2m"),
    ]


def test_the_faults_of_all_nodes_are_cleared_also_when_one_of_them_can_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    active = {ACTIVE_FAULTS: '[{"fault": "isolate", "since": "x"}]'}
    nodes = [{"metadata": {"name": f"node{n}", "annotations": active if n != 2 else {}}} for n in range(1, 5)]

    class Client:
        def objects(self, resource: str) -> list[dict[str, Any]]:
            return nodes

    def ask(folder: Folder, client: Client, node: str, *words: str) -> str:
        if node == "node1":
            raise LabError("node1 did not answer")
        return f"{node} {' '.join(words)}"

    monkeypatch.setattr("podplane.cli.fault.connect", lambda folder: Client())
    monkeypatch.setattr("podplane.cli.fault._ask", ask)
    monkeypatch.setattr("podplane.lab.spec.load", lambda path: None)
    with pytest.raises(LabError, match="node1 did not answer"):
        fault.main(["clear"], standalone_mode=False)
    assert capsys.readouterr().out == "node3 clear \nnode4 clear \n"
    nodes.clear()
    fault.main(["clear"], standalone_mode=False)
    assert capsys.readouterr().out == "No fault is active.\n"


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
    value = {"loss": ["10%"], "block-port": ["4789"], "mtu": ["1400"]}.get(row.name, [])
    fault.main(["--name", "other", "node2", row.option, *value], standalone_mode=False)
    said = capsys.readouterr().out
    assert "{" not in said
    assert said.count("`podplane ") == said.count(" --name other")
    assert ("undo: `podplane fault --name other node2 --clear`" in said) == bool(row.undo)


def test_a_machine_whose_node_was_deleted_is_cleared_with_all_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes: list[dict[str, Any]] = [{"metadata": {"name": "node1"}}, {"metadata": {"name": "node3"}}]

    class Client:
        def objects(self, resource: str) -> list[dict[str, Any]]:
            return list(nodes)

        def create(self, resource: str, namespace: str, manifest: dict[str, Any]) -> None:
            nodes.append(manifest)

    def ask(folder: Folder, client: Client, node: str, *words: str) -> str:
        assert node in {one["metadata"]["name"] for one in nodes}
        return f"{node} {' '.join(words)}"

    monkeypatch.setattr("podplane.cli.fault.connect", lambda folder: Client())
    monkeypatch.setattr("podplane.cli.fault._ask", ask)
    monkeypatch.setattr("podplane.lab.spec.load", lambda path: SimpleNamespace(nodes=3))
    fault.main(["clear"], standalone_mode=False)
    fault.main(["clear"], standalone_mode=False)
    assert capsys.readouterr().out == "node2 clear \nNo fault is active.\n"


@pytest.mark.parametrize(("given", "seconds"), [(None, "40 to 50"), (50, "40 to 50"), (10, "8 to 10"), (300, "290 to 300")])
def test_when_a_node_is_not_ready_is_what_the_lab_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: int | None, seconds: str
) -> None:
    settings = LabSpec(node_monitor_grace_period=given) if given else None
    monkeypatch.setattr("podplane.lab.spec.load", lambda file: settings)
    monkeypatch.setattr("podplane.cli.fault.connect", lambda folder: None)
    monkeypatch.setattr("podplane.cli.fault._node", lambda client, name: {})
    monkeypatch.setattr("podplane.cli.fault._ask", lambda *words: "done")
    for option in ("--cut-api", "--power-off"):
        fault.main(["node1", option], standalone_mode=False)
        assert f"`kubectl get node node1` says NotReady after {seconds} seconds; " in capsys.readouterr().out
