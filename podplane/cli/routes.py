"""`podplane routes`: which routes nodes have, who asked for each, and through which tunnel it leads."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

from podplane.cli import unreached
from podplane.cli.names import some
from podplane.cli.nodes import Question, ask, why_silent
from podplane.cli.options import connect, lab_or_cluster
from podplane.cli.tables import document_text, table
from podplane.cli.where import Where, what
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.model.answers import RouteStatus
from podplane.model.config import AGENT_PORT
from podplane.model.node_addresses import why_no_block
from podplane.model.words import listed
from podplane.state.value import network_of

OF_NODES = "node/"
MOST = 5
"""So many nodes are named."""
COLUMNS = ["NODE", "DESTINATION", "VIA", "LINK", "THROUGH", "WANTED-BY", "STATE"]


@click.command()
@lab_or_cluster
@click.option("--node", help="Of this node alone.")
@click.option("-A", "--all", "everything", is_flag=True, help="Those to the node's own pods and Services, too.")
@click.option("--stats", is_flag=True, help="How many there are, by link and state, and to how many blocks of nodes they lead.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def routes(where: Where, node: str | None, everything: bool, stats: bool, output: str | None) -> None:
    """Show the routes that lead to pods of other nodes. Exit status 1 when a node does not answer, has not got a route of its,
    has none to a node, or has withdrawn those to one that failed."""
    client = connect(where)
    nodes = {one["metadata"]["name"]: one for one in client.objects("nodes")}
    if node is not None and node not in nodes:
        raise LabError(f"there is no node {node!r}: this {what(where)} has {some(list(nodes))}")
    questions = [Question(name, AGENT_PORT, "routes", list[RouteStatus]) for name in nodes if node in (None, name)]
    answers = {one.node: answer for one, answer in ask(client, questions).items()}
    found = {name: _chosen(name, answer, everything) for name, answer in answers.items() if not isinstance(answer, ApiError)}
    silent = {n: why_silent(nodes[n], a, where.undo_faults(n)) for n, a in answers.items() if isinstance(a, ApiError)}
    far = unreached.in_lab(where, client, answers)
    if output:
        told = {"counts": _counts(found, nodes)} if stats else {"routes": found}
        click.echo(document_text({**told, "errors": silent, "unreached": msgspec.to_builtins(far)}, output))
    elif any(found.values()):
        click.echo(table(_table_of(_counts(found, nodes)) if stats else [COLUMNS, *_rows(found)]))
    elif found:
        click.echo("There is no route to another node.")
    for name, why in silent.items():
        click.echo(f"{name}: {why}", err=True)
    for name, reasons in far.items() if not output else ():
        for one in reasons:
            click.echo(f"{name}: {one.sentence()}", err=True)
    gone = _withdrawn(found)
    for peer, nodes_ in gone.items() if not output else ():
        why = "it is not ready and does not answer; what is sent to its pods is refused"
        click.echo(f"{peer}: its routes are withdrawn on {listed(nodes_, MOST)}: {why}", err=True)
    missing = any(one["state"] != "done" for rows in found.values() for one in rows)
    sys.exit(1 if silent or far or missing or gone else 0)


def _chosen(node: str, rows: Sequence[Mapping[str, Any]], everything: bool) -> list[Mapping[str, Any]]:
    return [one for one in rows if everything or any(_is_peer(key, node) for key in one["wanted_by"])]


def _is_peer(key: str, node: str) -> bool:
    return key.startswith(OF_NODES) and key != f"{OF_NODES}{node}"


def _withdrawn(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Peer → the nodes on which its routes are withdrawn."""
    gone: dict[str, list[str]] = {}
    for node, rows in found.items():
        for peer in sorted({name for one in rows for name in one.get("withdrawn", ())}):
            gone.setdefault(peer, []).append(node)
    return gone


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[list[str]]:
    for node, rows in found.items():
        for one in rows:
            link = one["link"] or one["kind"]
            yield [node, one["destination"], one["via"], link, one["through"], ",".join(one["wanted_by"]), one["state"]]


def _counts(
    found: Mapping[str, Sequence[Mapping[str, Any]]], nodes: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Node → how many of its routes lead to a link and are in a state, and to how many blocks of nodes they lead."""
    return {node: _counts_of(rows, nodes) for node, rows in found.items()}


def _counts_of(rows: Iterable[Mapping[str, Any]], nodes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    routes, blocks = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for one in rows:
        kind = one["link"] or one["kind"], one["state"]
        routes[kind] += 1
        wanting = (key.removeprefix(OF_NODES) for key in one["wanted_by"] if key.startswith(OF_NODES))
        blocks[kind] += sum(_leads_to(one["destination"], nodes.get(name, {})) for name in wanting)
    return [
        {"link": link, "state": state, "routes": count, "blocks": blocks[link, state]}
        for (link, state), count in sorted(routes.items())
    ]


def _leads_to(destination: str, node: Mapping[str, Any]) -> int:
    """To how many of a node's blocks."""
    whole = network_of(destination)
    own = (block for block in node.get("spec", {}).get("podCIDRs", ()) if not why_no_block(block))
    return sum(one.version == whole.version and one.subnet_of(whole) for one in map(network_of, own))  # type: ignore[arg-type]  # one version


def _table_of(counts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    rows = [
        [node, one["link"], one["state"], str(one["routes"]), str(one["blocks"])]
        for node, of_node in counts.items()
        for one in of_node
    ]
    return [["NODE", "LINK", "STATE", "ROUTES", "BLOCKS"], *rows]
