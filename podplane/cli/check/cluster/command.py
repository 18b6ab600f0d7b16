"""A check of a cluster, from what it is allowed to do until nothing of it is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from podplane.cli.check import examination, promises, report, sessions
from podplane.cli.check.cluster import on_cluster, place, pods, rights
from podplane.cli.check.cluster.interruption import ending_in_order
from podplane.cli.check.cluster.on_cluster import OnCluster
from podplane.cli.check.cluster.place import Place
from podplane.cli.check.cluster.policies import view
from podplane.cli.check.parties import Gathered
from podplane.cli.errors import ClusterError
from podplane.cli.tables import is_ready, pod_ips
from podplane.kubeapi.errors import ApiError
from podplane.model.config import CHECK_NAMESPACE

Object = dict[str, Any]
FORBIDDEN = 403


class Wanted(NamedTuple):
    """What the user asked for."""

    namespace: str
    image: str
    deep: bool
    everything: bool


def examined(client: Any, wanted: Wanted) -> report.Result:
    """Make the parties, examine them, and take them away. ClusterError when it can't be found out."""
    rights.demand(client, wanted.namespace or CHECK_NAMESPACE, is_own=not wanted.namespace)
    nodes, left_out = able(client.objects("nodes"))
    if not nodes:
        raise ClusterError(
            f"there is nothing to check: the cluster has no node that is Ready ({', '.join(left_out) or 'none at all'})"
        )
    with ending_in_order(), place.made(client, wanted.namespace) as here:
        why_no_nodes = _make(here, [node["metadata"]["name"] for node in nodes], wanted)
        running, lost = pods.started(here)
        if not running:
            raise ClusterError(next(iter(lost.values()), "no pod of the check runs"))
        result = _examine(here, nodes, running, lost, why_no_nodes, wanted)
    left_out += [f"pods in the network of nodes ({why_no_nodes})"] if why_no_nodes else []
    result.left_out = [*left_out, *result.left_out]
    return result


def able(nodes: Sequence[Object]) -> tuple[list[Object], list[str]]:
    """The nodes that can run the check's pods, in the order of their numbers; and the others with why they can't."""
    found, left_out = list[Object](), list[str]()
    for node in sorted(nodes, key=lambda one: (len(one["metadata"]["name"]), one["metadata"]["name"])):
        system = node.get("status", {}).get("nodeInfo", {}).get("operatingSystem", "linux")
        if system != "linux":
            left_out.append(f"node {node['metadata']['name']} (it runs {system})")
        elif not is_ready(node):
            left_out.append(f"node {node['metadata']['name']} (it is not Ready)")
        else:
            found.append(node)
    return found, left_out


def _make(here: Place, nodes: Sequence[str], wanted: Wanted) -> str:
    """Make the pods; what the API says of those that speak for nodes, if it refuses them. ClusterError when it refuses others."""
    why_no_nodes = ""
    for one in pods.manifests(nodes, wanted.image, two_on_each=wanted.deep):
        on_host = bool(one["spec"].get("hostNetwork"))
        if on_host and why_no_nodes:
            continue
        try:
            here.create("pods", one)
        except ApiError as error:
            if not on_host or error.code != FORBIDDEN:
                raise ClusterError(f"the check's pod {one['metadata']['name']} is refused: {error}") from None
            why_no_nodes = str(error)
    return why_no_nodes


def _examine(
    here: Place, nodes: Sequence[Object], running: Sequence[Object], lost: dict[str, str], why_no_nodes: str, wanted: Wanted
) -> report.Result:
    members = pods.members(running)
    policies = view(here, nodes)
    judged = frozenset(
        one.name for one in members if one.kind == "pod" and policies.index.policies_of(f"{one.namespace}/{one.pod}")
    )
    who = Gathered(members, {}, lost, {}, frozenset(), judged, policies)
    on_host = {pod["spec"]["nodeName"]: pod_ips(pod) for pod in running if pod["spec"].get("hostNetwork")}
    scene = OnCluster(
        here, nodes, wanted.deep, on_cluster.site_of(nodes, on_host), on_cluster.unproved(len(nodes), not why_no_nodes)
    )
    count = sum(one.kind == "pod" for one in members)
    everything = wanted.everything or wanted.deep or count <= promises.EVERY_PAIR_UP_TO
    with sessions.probers(here.client, members, pods.PROBER) as (found, refused):
        result = examination.examine(who, found, refused, everything, scene)
    if not any(one.proved for one in result.verdicts):
        why = next((failure for one in result.verdicts for failure in one.failures), "nobody says why")
        raise ClusterError(f"nothing could be found out: {why}")
    return result
