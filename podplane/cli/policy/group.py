"""The group of commands `podplane policy`."""

from __future__ import annotations

import click

from podplane.cli.lazy import Lazy, Rows

COMMANDS: Rows = {
    "verdict": (
        "podplane.cli.policy.verdict",
        "verdict",
        "Say whether a flow is allowed, and which rule of which policy decides.",
    ),
    "matrix": ("podplane.cli.policy.matrix", "matrix", "Show which pods reach which, as a table."),
    "list": ("podplane.cli.policy.listing", "listing", "Show policies, or those that select a pod."),
    "lint": ("podplane.cli.policy.lint", "lint", "Name probable mistakes in policies, of the cluster or of a file."),
    "diff": ("podplane.cli.policy.diff", "diff", "Show which flows a file would deny or allow if it were applied."),
    "denied": ("podplane.cli.policy.denied", "denied", "Show what policies denied in the last minutes, or go on showing it."),
}


@click.command(cls=Lazy, rows=COMMANDS)
def policy() -> None:
    """Who may talk to whom: NetworkPolicies, what follows from them, and what they denied. No packets are sent."""
