"""`kubeconfig`: the way to a lab for kubectl and every other client."""

from __future__ import annotations

import click

from podplane.cli.options import lab_name
from podplane.lab.folder import Folder


@click.command()
@lab_name
@click.option(
    "--merge",
    is_flag=True,
    help="Put the lab into your own kubeconfig ($KUBECONFIG or ~/.kube/config), as the current context.",
)
def kubeconfig(folder: Folder, merge: bool) -> None:
    """Print the path of the lab's kubeconfig: export KUBECONFIG=$(podplane kubeconfig)."""
    from podplane.lab import kubeconfig as files

    folder.endpoint()  # says it when the lab doesn't run
    if not merge:
        click.echo(folder.kubeconfig)
        return
    path = files.merge(folder, files.users_files())
    name, (current, chooser) = files.entry_name(folder), files.current_context()
    says = "kubectl uses it" if current == name else f"kubectl uses {current}, which {chooser} says: `kubectl --context {name}`"
    click.echo(f"{path} has the context {name} now, and {says}.")
