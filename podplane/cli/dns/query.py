"""The command `podplane dns query`."""

from __future__ import annotations

import ipaddress
import sys

import click

from podplane.cli.options import connect, lab_name, namespace
from podplane.cli.tables import document_text
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder

NOT_FOUND = 1
"""Exit status when no name has such a record."""
ADDRESSES = ("A", "AAAA")


@click.command()
@lab_name
@namespace
@click.argument("wanted", metavar="NAME")
@click.option("--from", "pod", metavar="[NAMESPACE/]POD", help="Who asks: this pod.")
@click.option("--node", default="", help="Who asks: this node; without --from and --node the first one.")
@click.option(
    "-t", "--type", "types", multiple=True, metavar="TYPE", help="A, AAAA, SRV, PTR, TXT, …; A and AAAA if it is not said."
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def query(
    folder: Folder, namespace: str, wanted: str, pod: str | None, node: str, types: tuple[str, ...], output: str | None
) -> None:
    """Show what a pod gets for NAME, and why: each name that its resolver asks for, who answers, with which records.

    An address stands for the name that leads back from it. Exit status 1: there is no such record.
    """
    from podplane.cli.dns import answered, asking, show
    from podplane.cli.names import place
    from podplane.lab import spec
    from podplane.lab.node_dns import node_dns

    if pod is not None and node:
        raise LabError("say --from or --node, not both: a pod asks from its own node")
    name, kinds = _question(wanted, types)
    client = connect(folder)
    settings = spec.load(folder.spec) or spec.LabSpec()
    dns = node_dns(asking.servers(client), settings.cluster_domain)
    who = asking.of_pod(client, *place(pod, namespace), dns) if pod is not None else asking.of_node(client, node, dns)
    found = answered.look_up(client, who, name, kinds, folder.undo_faults)
    click.echo(document_text(found.document(), output) if output else show.answered(found))
    if not found.data:
        sys.exit(NOT_FOUND)


def _question(name: str, types: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The name, and the types that are asked for. LabError when one of them is none."""
    from podplane.cli.dns.arguments import check_name
    from podplane.dns.reasons import reverse_name
    from podplane.dns.response_text import type_of, type_text

    try:
        ip = str(ipaddress.ip_address(name))
    except ValueError:
        ip = ""
    if ip:
        name, types = reverse_name(ip), types or ("PTR",)
    check_name(name)
    try:
        return name, tuple(dict.fromkeys(type_text(type_of(one)) for one in types or ADDRESSES))
    except ValueError as error:
        raise LabError(str(error)) from None
