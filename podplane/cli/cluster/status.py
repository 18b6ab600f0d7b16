"""The command `podplane cluster status`."""

from __future__ import annotations

import sys

import click

from podplane.cli.options import connect_only, kubeconfig
from podplane.cli.tables import document_text
from podplane.cli.where import OfKubeconfig

WRONG = 1
"""Exit status when something is wrong."""


@click.command()
@kubeconfig
@click.option(
    "--all", "-A", "everything", is_flag=True, help="All nodes, however many: each agent is asked, and each has a row."
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def status(where: OfKubeconfig, everything: bool, output: str | None) -> None:
    """Show a cluster in one screen: nodes and agents, what is programmed, what is wrong and what to do.

    Exit status 0: all is well; 1: something is wrong; 2: the cluster could not be asked. Of more than 250 nodes, agents are asked that look
    wrong, and some of the others.
    """
    from podplane.cli.cluster import gather, problems, show

    facts = gather.facts(connect_only(where), everything=everything)
    found = problems.problems(facts)
    if output:
        click.echo(document_text(show.document(facts, found, everything=everything), output))
    else:
        click.echo(show.text(facts, found, everything=everything))
    if found:
        sys.exit(WRONG)
