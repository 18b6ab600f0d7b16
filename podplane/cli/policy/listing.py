"""The command `podplane policy list`."""

from __future__ import annotations

import click

from podplane.cli.options import connect, lab_or_cluster, namespace
from podplane.cli.tables import document_text
from podplane.cli.where import Where


@click.command(name="list")
@lab_or_cluster
@namespace
@click.argument("pod", metavar="[[NAMESPACE/]POD]", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Policies of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def listing(where: Where, namespace: str, pod: str | None, all_namespaces: bool, output: str | None) -> None:
    """Show policies, how many pods each selects and how often it decided; or, of one pod, those that select it and what they allow."""
    from podplane.cli.policy import listed
    from podplane.cli.policy.cluster import check_namespace, cluster
    from podplane.cli.policy.counts import decided
    from podplane.cli.policy.places import pod_path

    path = None if pod is None else pod_path(pod, namespace)
    client = connect(where)
    known = cluster(client)
    if path is not None:
        of_pod = listed.of_pod(known, path, lambda node: decided(client, [node]))
        click.echo(document_text(of_pod.document(), output) if output else of_pod.text())
        return
    if not all_namespaces:
        check_namespace(known.index, namespace)
    found = listed.of_namespace(known, "" if all_namespaces else namespace)
    counts = decided(client, sorted(known.nodes)) if found else None
    if output:
        click.echo(document_text({"policies": [one.document(counts) for one in found]}, output))
    elif found:
        click.echo(listed.overview(found, counts))
    else:
        click.echo("There is no policy" + ("." if all_namespaces else f" in namespace {namespace}."))
