"""What is wrong with addresses and blocks of Nodes: those that are missing, that several claim, or of the wrong network. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from podplane.cli.cluster.facts import ClusterNode, Facts
from podplane.cli.cluster.said import Problem
from podplane.machine.cidrs import holds
from podplane.model.words import listed
from podplane.routes.claims import Claims
from podplane.state.value import IPNetwork, address_of, network_of

NO_BLOCK = "has no block for pods (spec.podCIDRs)"
ALLOCATE = "kube-controller-manager gives them with --allocate-node-cidrs and --cluster-cidr"
EXHAUSTED = "its cluster CIDR may have none left, or it does not run"
GONE = "kubectl delete node, of one whose machine is gone"
ANEW = "delete the Node, and start its kubelet anew"
CORRECT = "correct config.network.cluster_cidrs (back to what it was: helm rollback podplane), and delete no Node"


def block_problems(facts: Facts) -> Iterator[Problem]:
    """Of all Nodes on which an agent can run."""
    claims, nodes = Claims(), [node for node in facts.nodes.values() if node.is_linux]
    for node in nodes:
        claims.put(node.name, node)
    clusters, services = ([network_of(one) for one in found] for found in (facts.cluster_cidrs, facts.service_cidrs))
    usual = Counter(frozenset(network_of(block).version for block in node.spec.pod_cidrs) for node in nodes).most_common(1)
    todo = _of_blocks(nodes, clusters)
    for node in nodes:
        if not node.internal_ips:
            yield Problem("has no InternalIP: no other node can reach it", (node.name,), "give its kubelet --node-ip")
        yield from _missing(node, usual[0][0], any(one.spec.pod_cidrs for one in nodes))
        for why in claims.lost(node.name).values():
            yield Problem(f"is left out in part: {why}", (node.name,), GONE, "are left out in part, as others have the same")
        yield from _elsewhere(node, services, clusters, todo)


def _missing(node: ClusterNode, usual: frozenset[int], have_others: bool) -> Iterator[Problem]:
    there = frozenset(network_of(block).version for block in node.spec.pod_cidrs)
    if not there:
        yield Problem(NO_BLOCK, (node.name,), f"{ALLOCATE}; {EXHAUSTED}" if have_others else ALLOCATE)
    elif less := sorted(usual - there):
        yield Problem(f"has no block of {listed([f'IPv{version}' for version in less])}, and most others have", (node.name,))


def _of_blocks(nodes: Sequence[ClusterNode], clusters: Sequence[IPNetwork]) -> str:
    """What to do about blocks outside of the networks of pods: if those of most nodes are, the networks are wrong, not the nodes."""
    outside = sum(any(_is_outside(block, clusters) for block in map(network_of, node.spec.pod_cidrs)) for node in nodes)
    return CORRECT if outside > len(nodes) / 2 else ANEW


def _is_outside(block: IPNetwork, clusters: Iterable[IPNetwork]) -> bool:
    same = [one for one in clusters if one.version == block.version]
    return bool(same) and not any(holds(one, block) for one in same)


def _elsewhere(node: ClusterNode, services: Iterable[IPNetwork], clusters: Sequence[IPNetwork], todo: str) -> Iterator[Problem]:
    """Blocks that are not of the network of pods, or of that of Services; addresses in one of them."""
    for block in map(network_of, node.spec.pod_cidrs):
        if _is_outside(block, clusters):
            names = listed([str(one) for one in clusters if one.version == block.version])
            text = f"outside of the network of pods {names}"
            yield Problem(f"the block {block} is {text}", (node.name,), todo, f"have blocks {text}")
        for one in services:
            if one.version == block.version and one.overlaps(block):
                text = f"the network of Services {one}"
                yield Problem(f"the block {block} overlaps {text}", (node.name,), kind=f"have blocks that overlap {text}")
    for ip in map(address_of, node.internal_ips):
        for what, networks in (("pods", clusters), ("Services", services)):
            for one in networks:
                if one.version == ip.version and ip in one:
                    text = f"in the network of {what} {one}"
                    yield Problem(f"its address {ip} is {text}", (node.name,), kind=f"have addresses {text}")
