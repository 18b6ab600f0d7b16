"""The command `podplane policy matrix`."""

from __future__ import annotations

import click

from podplane.cli.options import connect, lab_or_cluster, namespace
from podplane.cli.tables import document_text
from podplane.cli.where import Where


@click.command()
@lab_or_cluster
@namespace
@click.option("-A", "--all-namespaces", is_flag=True, help="Pods of all namespaces.")
@click.option("--port", metavar="PORT[/PROTOCOL]", help="Only this port of the pods (not of Services): 80, 53/udp.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def matrix(where: Where, namespace: str, all_namespaces: bool, port: str | None, output: str | None) -> None:
    """Show which pods reach which: rows are who opens a connection, columns are to whom.

    Pods that fare alike in everything share a row and a column. No packets are sent: this is what the policies say.
    """
    from podplane.cli.policy import reached
    from podplane.cli.policy.cluster import check_namespace, cluster
    from podplane.cli.policy.places import port_of

    asked = None if port is None else port_of(port)
    known = cluster(connect(where))
    if not all_namespaces:
        check_namespace(known.index, namespace)
    found = reached.tables(known, "" if all_namespaces else namespace, asked)
    if output:
        click.echo(document_text({"tables": [one.document() for one in found]}, output))
    elif found:
        click.echo("\n\n".join(one.text(with_version=len(found) > 1) for one in found))
    else:
        click.echo("There is no pod with an address" + ("." if all_namespaces else f" in namespace {namespace}."))
