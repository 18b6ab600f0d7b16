"""The command `podplane policy lint`."""

from __future__ import annotations

import sys
from typing import TextIO

import click

from podplane.cli.options import connect, lab_or_cluster, namespace
from podplane.cli.policy.files import known_objects, tell_others, text_of
from podplane.cli.tables import document_text, plain
from podplane.cli.where import Where

FOUND = 1
"""Exit status when there are mistakes."""


@click.command()
@lab_or_cluster
@namespace
@click.option("-A", "--all-namespaces", is_flag=True, help="NetworkPolicies of all namespaces.")
@click.option(
    "-f",
    "--filename",
    "file",
    type=click.File("r", encoding="utf-8"),
    help="Those of a file, as if it were applied; - is standard input.",
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def lint(where: Where, namespace: str, all_namespaces: bool, file: TextIO | None, output: str | None) -> None:
    """Name probable mistakes in policies: what selects or allows nothing, what another rule decides anyway, what cuts names off.

    Those of the whole cluster (ClusterNetworkPolicies) are always looked at. Exit status 1: there are some.
    """
    from podplane.cli.policy import linted
    from podplane.cli.policy.cluster import check_namespace, cluster
    from podplane.cli.policy.proposed import check_namespaces, documents, proposal

    client = connect(where)
    if file is None:
        there = cluster(client)
        if not all_namespaces:
            check_namespace(there.index, namespace)
        found = linted.of_namespace(there, "" if all_namespaces else namespace)
    else:
        objects = documents(text_of(file), file.name)
        proposed = proposal(objects, known_objects(client, {one["kind"] for one in objects}), namespace)
        tell_others(proposed.passed_over, "looked at", "policies, and labels of Namespaces and Pods")
        there = cluster(client)
        check_namespaces(proposed, there.index)
        found = linted.of_file(there, proposed.edits)
    if output:
        click.echo(document_text(linted.document(found), output))
    else:
        for one in found:
            click.echo(plain(str(one)))
        if not found:
            which = (
                "of the file"
                if file
                else "of all namespaces"
                if all_namespaces
                else f"of namespace {namespace}, and of the cluster"
            )
            click.echo(f"No mistake is found in the policies {which}.")
    if found:
        sys.exit(FOUND)
