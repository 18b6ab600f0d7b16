"""The group of commands `podplane dns`."""

from __future__ import annotations

import click

from podplane.cli.lazy import Lazy, Rows

COMMANDS: Rows = {
    "query": ("podplane.cli.dns.query", "query", "Show what a pod gets for a name, and why."),
    "status": ("podplane.cli.dns.status", "status", "Show the name servers of the nodes, and what is wrong with them."),
    "log": ("podplane.cli.dns.log", "log", "Show the questions that are logged."),
    "import-corefile": (
        "podplane.cli.dns.import_corefile",
        "import_corefile",
        "Turn CoreDNS's configuration into the ConfigMap of podplane's DNS.",
    ),
}


@click.command(cls=Lazy, rows=COMMANDS)
def dns() -> None:
    """The cluster's names, and the servers that answer for them."""
