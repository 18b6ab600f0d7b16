"""Which nodes do not reach each other's pods, as `up`, `backend` and `routes` say it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from podplane.cli import unreached
from podplane.kubeapi.errors import NotFound
from podplane.lab import spec
from podplane.lab.folder import Folder
from podplane.model.config import BACKENDS, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import ways
from tests.unit.routes.test_subnets import FAR, HERE, NEAR, SUBNETS, settings

NODES = {one.metadata.name: one for one in (HERE, NEAR, FAR)}


def said(backend: str, *subnets: str, nodes: dict[str, Node] = NODES) -> dict[str, list[tuple[str, ...]]]:
    """Node → the groups of peers that it does not reach."""
    found = unreached.among(nodes, settings(*subnets, backend=backend), nodes)
    return {name: [one.peers for one in reasons] for name, reasons in found.items()}


def reached_by(node: Node, text: str) -> Node:
    return msgspec.structs.replace(node, metadata=msgspec.structs.replace(node.metadata, annotations={BACKENDS: text}))


def test_a_router_is_in_the_way_of_host_gw_alone() -> None:
    assert said("host-gw", *SUBNETS) == {"node1": [("node3",)], "node2": [("node3",)], "node3": [("node1", "node2")]}
    assert not said("auto", *SUBNETS) and not said("vxlan", *SUBNETS) and not said("host-gw")


@pytest.mark.parametrize("backend", ["host-gw", "auto"])
def test_it_is_what_is_found_for_each_pair(backend: str) -> None:
    config = settings(*SUBNETS, backend=backend)
    pairs = {
        (node, peer) for node, reasons in unreached.among(NODES, config, NODES).items() for one in reasons for peer in one.peers
    }
    every = {(node, peer) for node in NODES for peer in NODES if node != peer}
    assert pairs == {(node, peer) for node, peer in every if ways.why_not(NODES[peer], NODES[node], config)}


def test_a_peer_that_has_not_got_the_new_backend_yet_is_judged_by_the_former_one() -> None:
    late = NODES | {"node3": reached_by(FAR, "host-gw")}
    assert said("auto", *SUBNETS, nodes=late) == {"node1": [("node3",)], "node2": [("node3",)]}
    assert not said("host-gw", *SUBNETS, nodes={name: reached_by(node, "vxlan") for name, node in NODES.items()})


def test_the_reason_is_told_of_one_peer_and_the_others_are_named() -> None:
    of_far = unreached.among(NODES, settings(*SUBNETS), ["node3"])["node3"][0].sentence()
    assert of_far.startswith("node3 (192.168.1.138) and node1 (192.168.1.10) have a router between them")
    assert of_far.endswith("(so it is with node2)")
    of_here = unreached.among(NODES, settings(*SUBNETS), ["node1"])
    assert list(of_here) == ["node1"] and "so it is" not in of_here["node1"][0].sentence()


def test_the_note_names_nodes_and_the_command_of_the_lab() -> None:
    found = unreached.among(NODES, settings(*SUBNETS), NODES)
    text = unreached.note(Folder.named("far"), found)
    assert text.startswith("Not all pods of other nodes are reached from node1, node2, node3: node1 (192.168.1.10) and node3 ")
    assert text.endswith(": `podplane backend --name far set auto`")
    assert unreached.note(Folder.named("far"), {}) == ""


@pytest.mark.parametrize(("data", "backend"), [({"backend": "auto"}, "auto"), ({"backend": "none"}, "vxlan"), (None, "vxlan")])
def test_settings_are_those_of_the_cluster_if_they_make_sense(data: dict[str, str] | None, backend: str) -> None:
    def get(*words: str) -> dict[str, Any]:
        if data is None:
            raise NotFound(404, "NotFound", "there is none")
        return {"data": data}

    own = NetworkConfig(cluster_cidrs=(), backend="vxlan")
    assert unreached.config_of(SimpleNamespace(get=get), own).backend == backend


def test_a_lab_without_a_router_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = Folder.named("one")
    folder.create()
    assert unreached.in_lab(folder, None) == {}
    spec.save(folder.spec, spec.LabSpec(name="one"))
    assert unreached.in_lab(folder, None) == {}


@pytest.mark.parametrize(
    ("nodes", "backend", "said"),
    [
        (
            (HERE, NEAR),
            "auto",
            "No nodes have a router between them: they send packets of pods as they are, and none through vxlan.",
        ),
        (
            (HERE, FAR),
            "auto",
            "Nodes of the same subnet send packets of pods as they are; between node1 (192.168.1.10, ",
        ),
        ((HERE, FAR), "vxlan", ""),
        ((HERE, NEAR), "host-gw", ""),
    ],
)
def test_which_nodes_use_the_tunnel_of_auto_is_told_in_one_line(
    nodes: tuple[Node, ...], backend: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = Folder.named("one")
    folder.create()
    spec.save(folder.spec, spec.LabSpec(name="one", subnets=1 if FAR not in nodes else 2))
    client = SimpleNamespace(
        get=lambda *words: {"data": {"backend": backend}}, objects=lambda kind: [msgspec.to_builtins(one) for one in nodes]
    )
    found = unreached.tunnelled_note(folder, client)
    assert found.startswith(said) and bool(found) == bool(said)
