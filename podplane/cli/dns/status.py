"""The command `podplane dns status`."""

from __future__ import annotations

import sys

import click

from podplane.cli.options import connect, lab_or_cluster
from podplane.cli.tables import document_text
from podplane.cli.where import Where, what
from podplane.lab.errors import LabError

NOT_WELL = 1
"""Exit status when a server does not answer, or something is wrong with one."""


@click.command()
@lab_or_cluster
@click.option("--node", default="", help="All about the name server of this node.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def status(where: Where, node: str, output: str | None) -> None:
    """Show the name servers of the nodes: whether they answer, what they know, the servers that they ask, what is wrong.

    Exit status 1 when one does not answer, or something is wrong with one.
    """
    from podplane.cli.dns import show_status, statuses

    client = connect(where)
    nodes = statuses.nodes(client)
    if not nodes:
        raise LabError(f"this {what(where)} has no nodes: nobody answers for names")
    if node and node not in nodes:
        raise LabError(f"there is no node {node!r}: this {what(where)} has {', '.join(nodes)}")
    chosen = [nodes[node]] if node else list(nodes.values())
    found = statuses.once_started(lambda: statuses.of_nodes(client, chosen, where.undo_faults))
    if output:
        click.echo(document_text(found[0] if node else {"nodes": found}, output))
    else:
        click.echo(show_status.detail(found[0]) if node else show_status.overview(found))
    if show_status.troubles(found):
        sys.exit(NOT_WELL)
