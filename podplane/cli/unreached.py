"""Which nodes do not reach each other's pods, by what the cluster says: its Nodes, its settings, and the lab's subnets."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from podplane.cli.names import some
from podplane.cli.where import Where, lab_spec
from podplane.kubeapi.errors import ApiError
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.routes import ways
from podplane.routes.cluster_settings import NAME, NAMESPACE, ClusterSettingsError, applied
from podplane.routes.cross_subnet import is_near
from podplane.routes.table import BY_NAME, backend
from podplane.routes.underlay import addresses, place
from podplane.state.value import network_of

if TYPE_CHECKING:
    from podplane.lab.spec import LabSpec


class Unreached(msgspec.Struct, frozen=True):
    """Peers whose pods a node does not reach, or only at some of their addresses, for one reason, which is told of the first of them."""

    peers: tuple[str, ...]
    why: str

    def sentence(self) -> str:
        """The reason, and of which other peers it is that, too."""
        others = list(self.peers[1:])
        return f"{self.why} (so it is with {some(others)})" if others else self.why


Found = Mapping[str, tuple[Unreached, ...]]
"""Node → what it does not reach; nodes that reach all are not in it."""


def config_of(client: Any, own: NetworkConfig) -> NetworkConfig:
    """Settings of nodes with what the cluster says now; what makes no sense counts as nothing, as it does for agents that start."""
    try:
        return applied(client.get("configmaps", NAMESPACE, NAME).get("data") or {}, own)
    except (ApiError, ClusterSettingsError):
        return own


def nodes_of(client: Any) -> dict[str, Node]:
    """The cluster's nodes by name."""
    return {node["metadata"]["name"]: msgspec.convert(node, Node) for node in client.objects("nodes")}


def in_lab(where: Where, client: Any, of: Iterable[str] | None = None) -> Found:
    """What the nodes `of` a lab do not reach (None: all of them); nothing is asked where there is no router between nodes. Of a cluster
    nobody knows here which subnets there are: its agents tell it themselves."""
    settings = lab_spec(where)
    if settings is None or settings.subnets == 1:
        return {}
    config = _config_in_lab(settings, client)
    nodes = nodes_of(client)
    return among(nodes, config, nodes if of is None else of)


def _config_in_lab(settings: LabSpec, client: Any) -> NetworkConfig:
    """What agents of a lab read of the way between nodes."""
    return config_of(client, NetworkConfig(cluster_cidrs=(), subnets=tuple(map(str, settings.plan().links()))))


def among(nodes: Mapping[str, Node], config: NetworkConfig, of: Iterable[str]) -> Found:
    """What the nodes `of` do not reach. While the backend changes, a peer is reached by the former one, whichever it is.

    Nodes of which the reason depends on the same are judged once: there may be a million pairs of nodes, and of subnets there are few.
    """
    config = msgspec.structs.replace(config, former_backends=tuple(BY_NAME))
    alike: dict[Hashable, list[str]] = {}
    for name, node in nodes.items():
        alike.setdefault(_class_of(node, config), []).append(name)
    found = {}
    for name in of:
        reasons = (_of_peers(nodes, name, peers, config) for peers in alike.values())
        if unreached := tuple(one for one in reasons if one is not None):
            found[name] = unreached
    return found


def _class_of(node: Node, config: NetworkConfig) -> Hashable:
    return place(node, config), ways.reached_by(node), tuple(network_of(block).version for block in node.spec.pod_cidrs)


def _of_peers(nodes: Mapping[str, Node], name: str, peers: list[str], config: NetworkConfig) -> Unreached | None:
    """What a node does not reach of peers that are alike."""
    others = tuple(peer for peer in peers if peer != name)
    why = ways.why_not(nodes[others[0]], nodes[name], config) if others else ""
    return Unreached(others, why) if why else None


def tunnelled_note(where: Where, client: Any) -> str:
    """Which nodes of a lab reach each other through a tunnel and which directly, and why, where the backend has both ways; "" otherwise."""
    settings = lab_spec(where)
    if settings is None:
        return ""
    config = _config_in_lab(settings, client)
    tunnel = backend(config.backend).tunnel
    return _tunnelled(nodes_of(client), tunnel, config) if tunnel else ""


def _tunnelled(nodes: Mapping[str, Node], tunnel: str, config: NetworkConfig) -> str:
    """Nodes of the same place are alike; the reason is told of the first pair of two places."""
    places: dict[Hashable, list[Node]] = {}
    for node in nodes.values():
        places.setdefault(place(node, config), []).append(node)
    for (one, *_), (other, *_) in itertools.combinations(places.values(), 2):
        if not is_near(other, one, config):
            ends = " and ".join(
                f"{node.metadata.name} ({', '.join(map(str, addresses(node).values()))})" for node in (one, other)
            )
            return (
                f"Nodes of the same subnet send packets of pods as they are; between {ends} is a router, which knows no pods: "
                f"such nodes send them through {tunnel}."
            )
    return f"No nodes have a router between them: they send packets of pods as they are, and none through {tunnel}."


def note(where: Where, found: Found) -> str:
    """One line for all, and what to do; "" when all nodes are reached."""
    if not found:
        return ""
    of, first = list(found), next(iter(found.values()))[0]
    return f"Not all pods of other nodes are reached from {some(of)}: {first.why}: `{where.command('backend', 'set auto')}`"
