"""What users see of objects whose statuses have gaps, and whose texts would do something to a terminal."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from podplane.cli import tables
from podplane.cli.check import parties
from podplane.cli.services import gather, show
from podplane.cli.services.facts import Facts

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
METADATA = {"name": "a", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}
GAPS: dict[str, Any] = {
    "conditions": [{}, {"status": "True"}, {"type": "Ready"}, {"message": "why"}],
    "podIPs": [{}, {"ip": "10.0.0.1"}],
    "containerStatuses": [{}, {"state": {"terminated": {"exitCode": 3}}}],
    "addresses": [{}, {"type": "InternalIP"}, {"address": "10.0.0.9"}, {"type": "InternalIP", "address": "10.0.0.2"}],
}


def test_statuses_with_gaps_are_shown() -> None:
    pod = {"metadata": METADATA, "spec": {"containers": [{"name": "a"}]}, "status": GAPS}
    node = {"metadata": METADATA, "status": GAPS}
    assert "10.0.0.1" in tables.pods([pod], True, NOW)
    assert tables.nodes([node, {"metadata": METADATA}], True, NOW).splitlines()[1].split() == [
        *("a", "NotReady", "0s", "<none>"),
        "10.0.0.2",
    ]
    assert tables.trouble(pod) == "container None ended with exit code 3"
    assert not tables.is_ready(pod)
    assert not parties.runs(pod)


def test_a_pod_that_is_ready_on_no_node_takes_no_part_in_a_check() -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "10.0.0.1"}]}
    pod = {"metadata": METADATA, "spec": {"containers": [{"name": "a"}]}, "status": status}
    assert not parties.runs(pod)
    assert parties.runs({**pod, "spec": {**pod["spec"], "nodeName": "node1"}})


class Events:
    """An API with one event, which says nothing."""

    def objects(self, resource: str, namespace: str, **query: str) -> list[Any]:
        return [{"metadata": METADATA}]


def test_an_event_without_a_message_is_no_error() -> None:
    (warned,) = gather._warnings(Events(), {"metadata": METADATA | {"uid": "1"}})
    assert (warned.reason, warned.message) == ("", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web", "web"),
        ("ü 漢字 🐍", "ü 漢字 🐍"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\u202eback", "\\u202eback"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert tables.plain(text) == shown
    assert tables.table([["A"], [text]]) == f"A\n{shown}"


def test_what_a_service_says_of_itself_does_nothing_to_a_terminal() -> None:
    spec = {"type": "ClusterIP", "clusterIPs": ["10.96.0.5"], "selector": {"a": "\x1b[2J"}, "ports": [{"port": 80}]}
    text = show.detail(Facts({"metadata": METADATA, "spec": spec}, []))
    assert "\x1b" not in text and "a=\\x1b[2J" in text
