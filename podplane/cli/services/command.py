"""The command `podplane services`."""

from __future__ import annotations

import click

from podplane.cli.names import service_name
from podplane.cli.options import connect, lab_or_cluster, namespace
from podplane.cli.tables import document_text
from podplane.cli.where import Where


@click.command()
@lab_or_cluster
@namespace
@click.argument("service", metavar="[[svc/]NAME]", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Services of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def services(where: Where, namespace: str, service: str | None, all_namespaces: bool, output: str | None) -> None:
    """Show Services, or all about one: frontends, endpoints, what each node does for it, traffic, and what is wrong.

    Connections are those that the nodes track now; a closed one is tracked for some seconds more.
    """
    from podplane.cli.services import gather, show

    name = None if service is None else service_name(service)
    client = connect(where)
    if name is not None:
        facts = gather.of_service(client, namespace, name, undo=where.undo_faults)
        click.echo(document_text(show.document(facts), output) if output else show.detail(facts))
        return
    found = gather.of_all(client, "" if all_namespaces else namespace)
    if output:
        click.echo(document_text({"services": list(map(show.summary, found))}, output))
    elif found:
        click.echo(show.overview(found))
    else:
        click.echo(f"There is no Service in namespace {namespace}.")
