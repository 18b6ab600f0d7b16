"""`podplane dns import-corefile`: CoreDNS's configuration as the ConfigMap of podplane's."""

from __future__ import annotations

import os
import re
from typing import TextIO

import click

STDIN = "<stdin>"
OBJECT = re.compile(r'\s*(apiVersion:|\{\s*")')
"""What kubectl's `-o yaml` and `-o json` begin with."""


@click.command("import-corefile")
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@click.option("--domain", default="cluster.local", show_default=True, help="The cluster's domain.")
@click.option("--strict", is_flag=True, help="Exit status 1 when something has no counterpart.")
def import_corefile(file: TextIO, domain: str, strict: bool) -> None:
    """Turn a Corefile (- is standard input) into the ConfigMap of podplane's DNS.

    The ConfigMap is printed, for `kubectl apply -f -`; what has no counterpart is said on standard error, with its line. {$VARIABLES} are
    those of this command's environment.

      kubectl -n kube-system get configmap coredns -o jsonpath='{.data.Corefile}' | podplane dns import-corefile -
    """
    from podplane.dns import corefile, corefile_text
    from podplane.dns.config import domain_name
    from podplane.dns.corefile_syntax import MAX_CHARACTERS, CorefileError

    name = getattr(file, "name", STDIN)
    name = "Corefile" if name == STDIN else name
    try:
        cluster = domain_name(domain)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--domain") from None
    text = file.read(MAX_CHARACTERS + 1)
    if OBJECT.match(text):
        raise click.ClickException(
            f"{name} is an object of the API: its Corefile alone is wanted, as -o jsonpath='{{.data.Corefile}}' prints it"
        )
    try:
        found = corefile.imported(text, cluster, os.environ)
    except CorefileError as error:
        raise click.ClickException(_printable(f"{name}:{error.line}: {error}")) from None
    click.echo(corefile_text.config_map(found.config), nl=False)
    for note in found.notes:
        click.echo(f"{name}:{note.line}: {_printable(note.what)}", err=True)
    if strict and found.notes:
        raise SystemExit(1)


def _printable(text: str) -> str:
    """Words of a file may have characters that a terminal takes for commands."""
    return "".join(one if one.isprintable() else "?" for one in text)
