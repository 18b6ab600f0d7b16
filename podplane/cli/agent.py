"""`agent`: the agent of one node, on the node."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podplane.kubeapi.access import Access


@click.group(invoke_without_command=True)
@click.option(
    "--kubeconfig", help="Address of the API and this node's credentials.  [default: those of the pod that this runs in]"
)
@click.option("--config", "config", default="", help="Settings, in YAML.  [default: none]")
@click.option("--node-name", default="", help="The name of this machine's Node.  [default: its host name]")
@click.option("--run-dir", default="", help="Where the agent's socket and journal are.  [default: /run/podplane]")
@click.pass_context
def agent(context: click.Context, kubeconfig: str | None, config: str, node_name: str, run_dir: str) -> None:
    """Be the agent of this node until SIGTERM; as root, in the node's own network."""
    from msgspec.structs import replace

    from podplane.machine import configuration, program

    found = configuration.read(config)
    if run_dir:
        found = replace(found, run_dir=run_dir)
    if context.invoked_subcommand is None:
        name = node_name or found.node_name or socket.gethostname().lower()
        program.run(_access(kubeconfig), name, found)


def _access(kubeconfig: str | None) -> Access:
    from pathlib import Path

    from podplane.kubeapi.access import AccessError, from_kubeconfig, in_cluster
    from podplane.machine.errors import MachineError

    try:
        return from_kubeconfig(Path(kubeconfig)) if kubeconfig else in_cluster()
    except AccessError as error:
        raise MachineError(f"{error}{'' if kubeconfig else ': give --kubeconfig'}") from None
