"""The commands `podplane cluster …`: of a real cluster, by a kubeconfig."""

from __future__ import annotations

import click

from podplane.cli.lazy import Lazy, Rows

COMMANDS: Rows = {
    "status": ("podplane.cli.cluster.status", "status", "Show nodes and agents, what is programmed, and what is wrong."),
    "uninstall": (
        "podplane.cli.cluster.uninstall",
        "uninstall",
        "Take podplane from all nodes and from the API, and prove that nothing is left.",
    ),
}
"""Name → module, function, one line of help."""


@click.command(cls=Lazy, rows=COMMANDS)
def cluster() -> None:
    """podplane on a Kubernetes cluster."""
