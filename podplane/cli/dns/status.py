"""The command `podplane dns status`."""

from __future__ import annotations

import sys

import click

from podplane.cli.options import connect, lab_name
from podplane.cli.tables import document_text
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder

NOT_WELL = 1
"""Exit status when a server does not answer, or something is wrong with one."""


@click.command()
@lab_name
@click.option("--node", default="", help="All about the name server of this node.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def status(folder: Folder, node: str, output: str | None) -> None:
    """Show the name servers of the nodes: whether they answer, what they know, the servers that they ask, what is wrong.

    Exit status 1 when one does not answer, or something is wrong with one.
    """
    from podplane.cli.dns import show_status, statuses

    client = connect(folder)
    nodes = statuses.nodes(client)
    if not nodes:
        raise LabError("this lab has no nodes: nobody answers for names")
    if node and node not in nodes:
        raise LabError(f"there is no node {node!r}: this lab has {', '.join(nodes)}")
    chosen = [nodes[node]] if node else list(nodes.values())
    found = statuses.once_started(lambda: statuses.of_nodes(client, chosen, folder.undo_faults))
    if output:
        click.echo(document_text(found[0] if node else {"nodes": found}, output))
    else:
        click.echo(show_status.detail(found[0]) if node else show_status.overview(found))
    if show_status.troubles(found):
        sys.exit(NOT_WELL)
