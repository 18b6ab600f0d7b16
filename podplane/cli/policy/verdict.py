"""The command `podplane policy verdict`."""

from __future__ import annotations

import sys
from typing import Any

import click

from podplane.cli.options import connect, lab_or_cluster, namespace
from podplane.cli.tables import document_text
from podplane.cli.where import Where

DENIED = 1
"""Exit status when something of what was asked for is denied."""
SLICES = "endpointslices.discovery.k8s.io"


@click.command()
@lab_or_cluster
@namespace
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO[:PORT[/PROTOCOL]]")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def verdict(where: Where, namespace: str, source: str, destination: str, output: str | None) -> None:
    """Say whether FROM may open a connection to TO, and which rule of which policy decides that, in each direction.

    Both are a pod (web, shop/web), node/NAME or an address; TO may be a Service, too, and each endpoint behind it is judged. Without a PORT
    it says which ports are allowed. Exit status 1: it is denied, at one endpoint of a Service at least; without a PORT, all of it is.
    """
    from podplane.cli.policy import judged, places, show
    from podplane.cli.policy.cluster import cluster

    begin, to = places.wanted(source, namespace), places.wanted(destination, namespace)
    client = connect(where)
    known = cluster(client)
    found = judged.judge(known, begin, to, _slices(client, places.service_of(to, known)))
    click.echo(document_text(found.document(), output) if output else show.verdict(found))
    if not found.allowed:
        sys.exit(DENIED)


def _slices(client: Any, service: str) -> list[dict[str, Any]]:
    if not service:
        return []
    namespace, _, name = service.partition("/")
    found: list[dict[str, Any]] = client.objects(SLICES, namespace, labelSelector=f"kubernetes.io/service-name={name}")
    return found
