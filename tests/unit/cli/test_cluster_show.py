"""The screen of `cluster status`, as golden text: GOLDEN_UPDATE=1 writes it anew, what changed is for the reviewer to read."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from podplane.cli.cluster.facts import Facts, Unread, Warned
from podplane.cli.cluster.problems import problems
from podplane.cli.cluster.show import PROBLEMS, ROWS, document, text
from podplane.cli.tables import document_text
from podplane.kubeapi.errors import ApiError
from podplane.model.config import BACKENDS
from podplane.model.lease import Lease, LeaseSpec
from tests.unit.cli.clusters import NAMES, NOW, READY, answer, daemon_set, facts, node, pod

GOLDEN = Path(__file__).parents[2] / "golden"
SILENT = ApiError(504, "Timeout", "no answer within 3 s")


def ago(seconds: float) -> datetime.datetime:
    return NOW - datetime.timedelta(seconds=seconds)


def well() -> Facts:
    found = Lease(spec=LeaseSpec(holder_identity="podplane-controllers-7d-x2", renew_time="2026-03-01T11:59:58.000000Z"))
    return facts(*(node(name, annotations={BACKENDS: "host-gw"}) for name in NAMES), controllers=found)


def all_kinds() -> Facts:
    """As much as can be wrong at one time."""
    nodes = (
        node("w1", annotations={BACKENDS: "host-gw"}),
        node("w2", conditions=[{"type": "Ready", "status": "False", "message": "cni plugin not initialized"}]),
        node("w3", cidrs=["10.244.1.0/24"]),
        node("w4", cidrs=[]),
        node("w5", ips=[]),
        node("w6", conditions=[{**READY, "status": "Unknown"}]),
        node("w7", cidrs=["10.1.0.0/24"]),
    )
    refused = {"object": "link podplane.vxlan", "wanted_by": [], "why": "Operation not supported", "age": 9.0, "tries": 5}
    return facts(
        *nodes,
        daemon_set=daemon_set(7, updatedNumberScheduled=3, numberReady=4),
        pods=(
            pod("w1"),
            pod("w2", is_ready=False, why="ImagePullBackOff: Back-off pulling image"),
            *map(pod, ("w3", "w5", "w6", "w7")),
            pod("w7", name="stray", image_id="sha256:b"),
        ),
        answers={
            "w1": answer("w1", refused=1, refused_objects=[{**refused, "next_try_in": 1.0}], repaired={"route": 2}),
            "w2": SILENT,
            "w3": answer("w3", version="0.2.0"),
            "w4": SILENT,
            "w5": SILENT,
            "w6": SILENT,
            "w7": answer("w7", unmet=["firewall: the chain \x1b[31mINPUT drops"]),
        },
        took=3.4,
        network={"backend": "vxlan"},
        name_servers=0,
        warnings=tuple(Warned(f"w{n}", "NotApplied", f"it is refused: {n}", ago(60 * n), n) for n in range(1, 8)),
        unread=(Unread("get leases.coordination.k8s.io in kube-system", "this right is missing", "who leads the controllers"),),
    )


def many() -> Facts:
    """Two of 5,000 nodes have something wrong, and 250 were asked."""
    names = [f"n{number}" for number in range(1, 5001)]
    nodes = [
        node(name, cidrs=[f"10.{100 + n // 256}.{n % 256}.0/24"], ips=[f"172.16.{n // 250}.{n % 250 + 1}"])
        for n, name in enumerate(names)
    ]
    wrong = {"n7": {"cidrs": []}, "n4000": {"ips": []}}
    nodes = [
        node(one.name, **{"cidrs": list(one.spec.pod_cidrs), "ips": list(one.internal_ips), **wrong.get(one.name, {})})
        for one in nodes
    ]
    return facts(*nodes, cluster_cidrs=(), answers={name: answer(name) for name in names[::20]})


@pytest.mark.parametrize("make", [well, all_kinds, many])
def test_the_screen(make: object) -> None:
    assert callable(make)
    found: Facts = make()
    said = text(found, problems(found), everything=False) + "\n"
    path = GOLDEN / f"cluster-{make.__name__.replace('_', '-')}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(said)
    assert said == path.read_text()
    assert all(line.isprintable() for line in said.splitlines())


def test_many_rows_and_problems_are_printed_only_when_they_are_asked_for() -> None:
    nodes = [
        node(f"w{n}", conditions=[{"type": "Ready", "status": "False", "message": f"reason {n}"}]) for n in range(1, ROWS + 10)
    ]
    found = facts(*nodes, cluster_cidrs=())
    told = problems(found)
    short, long = (text(found, told, everything=one).splitlines() for one in (False, True))
    assert len(told) == ROWS + 9
    assert sum(": is not ready: reason" in line for line in short) == PROBLEMS and len(long) > len(short)
    assert sum(line.startswith("w") for line in short) == ROWS and sum(line.startswith("w") for line in long) == ROWS + 9
    assert f"  and {ROWS + 9 - PROBLEMS} more: --all shows them" in short
    assert len(document(found, told, everything=False)["nodes"]) == ROWS


def test_for_programs_all_is_there() -> None:
    found = all_kinds()
    said = json.loads(document_text(document(found, problems(found), everything=False), "json"))
    assert {one["node"]: one["agent"] for one in said["nodes"]} == {
        "w1": "ready",
        "w2": "not ready",
        "w3": "ready",
        "w4": "none",
        "w5": "no answer",
        "w6": "no answer",
        "w7": "2 agents",
    }
    assert said["summary"] == {"nodes": 7, "ready": 5, "asked": 7, "answered": 3, "nameServers": 0, "leader": None}
    assert len(said["warnings"]) == 7 and all(one["problem"] for one in said["problems"])
