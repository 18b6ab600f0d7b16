"""The command `podplane services`."""

from __future__ import annotations

import click

from podplane.cli.options import connect, lab_name, namespace
from podplane.lab.folder import Folder


@click.command()
@lab_name
@namespace
@click.argument("service", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Services of all namespaces.")
def services(folder: Folder, namespace: str, service: str | None, all_namespaces: bool) -> None:
    """Show Services, or all about one: frontends, endpoints, what each node does for it, traffic, and what is wrong.

    Connections are those that the nodes track now; a closed one is tracked for some seconds more.
    """
    from podplane.cli.services import facts, show

    client = connect(folder)
    if service is not None:
        click.echo(show.detail(facts.of_service(client, namespace, service)))
        return
    found = client.objects("services", "" if all_namespaces else namespace)
    slices, traffic = client.objects(facts.SLICES), facts.traffic(client)
    if not found:
        click.echo(f"There is no Service in namespace {namespace}.")
        return
    click.echo(show.overview([facts.Facts(one, facts.slices_of(slices, one), traffic=traffic) for one in found]))
