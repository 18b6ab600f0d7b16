"""The command `podplane policy list`."""

from __future__ import annotations

import click

from podplane.cli.options import connect, lab_name, namespace
from podplane.cli.tables import document_text
from podplane.lab.folder import Folder


@click.command(name="list")
@lab_name
@namespace
@click.argument("pod", metavar="[[NAMESPACE/]POD]", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Policies of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def listing(folder: Folder, namespace: str, pod: str | None, all_namespaces: bool, output: str | None) -> None:
    """Show policies and how many pods each selects; or, of one pod, those that select it and what they allow."""
    from podplane.cli.policy import listed
    from podplane.cli.policy.cluster import cluster
    from podplane.cli.policy.places import pod_path

    path = None if pod is None else pod_path(pod, namespace)
    known = cluster(connect(folder))
    if path is not None:
        of_pod = listed.of_pod(known, path)
        click.echo(document_text(of_pod.document(), output) if output else of_pod.text())
        return
    found = listed.of_namespace(known, "" if all_namespaces else namespace)
    if output:
        click.echo(document_text({"policies": [one.document() for one in found]}, output))
    elif found:
        click.echo(listed.overview(found))
    else:
        click.echo("There is no NetworkPolicy" + ("." if all_namespaces else f" in namespace {namespace}."))
