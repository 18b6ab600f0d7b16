"""The dashboard and the alerts ask for nothing that agents and name servers do not export."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from podplane.servers.figures import Figures
from podplane.servers.http import Call
from tests.unit.agent.test_reports import Node
from tests.unit.nameserver.test_metrics import rig_with_questions

DEPLOY = Path(__file__).parents[3] / "deploy"
PROMETHEUS = {"up": {"job", "instance"}}
"""What Prometheus itself says of a target."""
TARGET = {"job", "instance"}
"""Labels of each target."""
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
NAME = re.compile(r"\b((?:podplane|coredns)_\w+|up)(?:\{([^}]*)\})?")
LABELS = re.compile(r"(\w+)\s*[=!]~?")
BY = re.compile(r"\bby \(([^)]*)\)")
SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


class Seen:
    """The labels of all metrics that are made, by the names that they have in a scrape."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.labels: dict[str, set[str]] = dict(PROMETHEUS)
        for kind, suffixes in SUFFIXES.items():
            monkeypatch.setattr(Figures, kind, self._noting(getattr(Figures, kind), suffixes))

    def _noting(self, method: Callable[..., None], suffixes: tuple[str, ...]) -> Callable[..., None]:
        def noted(figures: Figures, name: str, text: str, labels: Sequence[str], samples: Any) -> None:
            self.labels |= {f"{name}{suffix}": set(labels) for suffix in suffixes}
            method(figures, name, text, labels, samples)

        return noted


@pytest.fixture
async def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The labels of all metrics, by name, of an agent and a name server that were asked for them."""
    seen, node = Seen(monkeypatch), Node()
    reports = await node.serve()
    scraped = (await reports.answer(Call("/metrics", "reader"))).body + (
        await (await rig_with_questions()).ask("/metrics")
    ).body
    assert all(
        re.search(rf"^# TYPE {name}\b".encode(), scraped, re.M) for name in ("podplane_unmet", "coredns_dns_requests_total")
    )
    return seen.labels


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana/podplane.json").read_text())["panels"]
    return [one for one in found if one["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((DEPLOY / "prometheus/podplane-rules.yaml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def asked() -> Iterator[tuple[str, str, set[str]]]:
    """Where a question is asked, the question, and the labels of its answer that are shown."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], set(SHOWN.findall(target["legendFormat"]))
    for rule in rules():
        shown = set(SHOWN.findall(" ".join(rule["annotations"].values())))
        yield rule["alert"], rule["expr"], shown


def test_each_metric_and_label_that_is_asked_for_is_exported(exported: dict[str, set[str]]) -> None:
    assert len(exported) > 50
    for where, question, shown in asked():
        names = NAME.findall(question)
        assert names, where
        for name, selectors in names:
            assert name in exported, (where, name)
            labels = exported[name] | TARGET | {"le"}
            assert set(LABELS.findall(selectors)) <= labels, (where, name, selectors)
        together = set().union(*(exported[name] for name, _ in names)) | TARGET
        grouped = [label.strip() for one in BY.findall(question) for label in one.split(",")]
        assert set(grouped) <= together | {"le"}, (where, grouped)
        assert shown <= (set(grouped) if grouped else together), (where, shown)


def test_metrics_that_tell_of_trouble_have_an_alert() -> None:
    alerted = {name for rule in rules() for name, _ in NAME.findall(rule["expr"])}
    assert {
        "podplane_objects",
        "podplane_blocked_keys",
        "podplane_unmet",
        "podplane_peer_reached",
        "podplane_dns_upstream_up",
    } <= alerted


def test_alerts_and_panels_are_named_once_and_alerts_are_documented() -> None:
    titles, alerts = [one["title"] for one in panels()], [one["alert"] for one in rules()]
    assert len(set(titles)) == len(titles) > 20 and len(set(alerts)) == len(alerts) > 10
    page = (DEPLOY.parent / "docs/operate.md").read_text()
    assert [one for one in alerts if one not in page] == []
    assert len({one["id"] for one in panels()}) == len(panels())
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"} and rule["labels"]["severity"] in ("warning", "critical")
