"""The command `podplane cluster uninstall`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from podplane.cli.cluster import helm
from podplane.cli.cluster.cleaning import Cleaning, Node
from podplane.cli.cluster.many import each
from podplane.cli.cluster.reads import paged
from podplane.cli.cluster.stays import stays
from podplane.cli.errors import ClusterError
from podplane.cli.options import connect_only, kubeconfig
from podplane.cli.where import OfKubeconfig
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.kubeapi.messages import JSON_PATCH, STRATEGIC_PATCH
from podplane.machine import removal
from podplane.machine.removal import NAMESPACE, UNINSTALL
from podplane.model.words import counted

NOT_DONE = 1
UNSEEN = "No node was looked at, and what agents made may still be there: install podplane again, and call this again."
STUCK = "Pods do not end without an agent: give --detach, or bring agents back (docs/install.md#removal)."


@click.command()
@kubeconfig
@click.option("--prove", is_flag=True, help="Print the comparison node by node; exit status 1 unless each is as it was before.")
@click.option("--detach", is_flag=True, help="Although pods are on the network, which lose it.")
@click.option("--wait", "seconds", type=float, default=300.0, show_default=True, help="Seconds that nodes have to be clean.")
def uninstall(where: OfKubeconfig, prove: bool, detach: bool, seconds: float) -> None:
    """Take podplane from a cluster: from each node, then from the API. Twice is fine.

    Exit status 1: a node is not clean (it is away, or has pods), and then all that cleans it stays; call it again.
    """
    client = connect_only(where)
    cleaning = Cleaning(client)
    agents, cleans = cleaning.installed()
    if agents is not None:
        _check_pods(client, detach)
    release = helm.release(agents or cleans)
    if agents is not None:
        for resource, namespace, name in removal.CONTROLLERS:
            _delete(client, resource, namespace, name)
        cleaning.begin(agents, detach=detach)
    elif cleans is None:
        click.echo(f"no agents: there is no DaemonSet {NAMESPACE}/{removal.AGENT}")
    elif detach:
        cleaning.detach()
    cleaning.clean(seconds)
    nodes = cleaning.wait(seconds, lambda one: _tell(one, prove), _tell_why) if agents or cleans else []
    if left := [one for one in nodes if not one.is_done]:
        _tell_left(left, removal.by_node(paged(client, "pods")))
        click.echo(f"The DaemonSet {NAMESPACE}/{UNINSTALL} stays, and cleans what comes back: then call this again.")
        sys.exit(NOT_DONE)
    gone = list(_clean_api(client, release))
    click.echo(f"removed from the API: {', '.join(gone) or 'nothing, there was nothing'}")
    if left_there := list(stays(client)):
        click.echo(f"stays in the API: {'; '.join(left_there)}")
    if nodes:
        same = sum(one.is_same for one in nodes)
        click.echo(f"{same} of {counted(len(nodes), 'node')} as before the first start of an agent.")
    elif gone:
        click.echo(UNSEEN)
    if prove and not (all(one.is_same for one in nodes) and (nodes or not gone)):
        sys.exit(NOT_DONE)


def _check_pods(client: Any, detach: bool) -> None:
    pods = removal.on_the_network(paged(client, "pods"))
    if pods and not detach:
        raise ClusterError(removal.refusal(pods))


def _tell_why(node: Node) -> None:
    click.echo(f"{node.name} waits: {'; '.join(node.lines)}")


def _tell_left(nodes: Iterable[Node], pods: Mapping[str, list[str]]) -> None:
    """Those that are not clean, with the pods that are there: without an agent these do not end."""
    has_pods = False
    for one in nodes:
        there, has_pods = pods.get(one.name) or [], has_pods or one.name in pods
        click.echo(
            f"{one.name}: not clean: {'; '.join((*one.lines, *([f'its pods: {removal.some(there)}'] if there else ())))}"
        )
    if has_pods:
        click.echo(STUCK)


def _tell(node: Node, prove: bool) -> None:
    if not prove:
        click.echo(f"{node.name}: {node.proof}")
        for line in node.differences:
            click.echo(line)
        return
    click.echo(f"{node.name}:")
    for line in node.lines:
        click.echo(f"  {line}")


def _delete(client: Any, resource: str, namespace: str, name: str) -> bool:
    """False when it is not there. The API's refusal ends the command: it is told which right is missing."""
    try:
        client.delete(resource, namespace, name, policy="Background")
    except NotFound:
        return False
    return True


def _releases(client: Any, named: helm.Release | None) -> Iterator[helm.Release]:
    """That which the agents name, and those that only helm knows of."""
    found = [] if named is None else [named]
    try:
        found += helm.of_podplane(client)
    except ApiError as error:
        click.echo(f"whether helm has a release of podplane is not known: {error}", err=True)
    yield from dict.fromkeys(found)


def _clean_api(client: Any, release: helm.Release | None) -> Iterator[str]:
    """What goes, in words."""
    yield from _clean_nodes(client)
    for resource, labels in removal.LABELLED:
        yield from _selected(client, resource, labels)
    for resource, namespace, name in (*removal.CONTROLLERS, *removal.objects()):
        if _delete(client, resource, namespace, name):
            yield f"{resource.partition('.')[0]} {name}"
    for one in _releases(client, release):
        yield from helm.remove(client, one, lambda line: click.echo(line, err=True))


def _clean_nodes(client: Any) -> Iterator[str]:
    if count := sum(each(client, paged(client, "nodes"), _clean_node)):
        yield f"marks of {counted(count, 'node')}"


def _clean_node(client: Any, node: dict[str, Any]) -> bool:
    """Was there anything of podplane's on it?"""
    name, changed = node["metadata"]["name"], False
    with contextlib.suppress(NotFound):
        if body := removal.without_annotations(node):
            client.patch("nodes", "", name, body)
            changed = True
        if body := removal.without_condition(node):
            client.patch_list("nodes", "", name, body, STRATEGIC_PATCH, "status")
            changed = True
        if operations := removal.without_taint(node):
            client.patch_list("nodes", "", name, operations, JSON_PATCH)
            changed = True
    return changed


def _selected(client: Any, resource: str, labels: str) -> Iterator[str]:
    names = [one["metadata"] for one in paged(client, resource, labelSelector=labels)]
    gone = sum(each(client, names, lambda own, one: _delete(own, resource, one["namespace"], one["name"])))
    if gone:
        yield counted(gone, resource.partition(".")[0].removesuffix("s"))
