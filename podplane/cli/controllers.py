"""`controllers`: what a cluster's control plane does for podplane, as a process beside it."""

from __future__ import annotations

import click


@click.group(invoke_without_command=True)
@click.option(
    "--kubeconfig", default="", help="Address of the API and credentials.  [default: those of the pod that this runs in]"
)
@click.option("--config", default="", help="Settings, in YAML.  [default: none]")
@click.pass_context
def controllers(context: click.Context, kubeconfig: str, config: str) -> None:
    """Give addresses to load balancers, and blocks to nodes, until SIGTERM; of several processes one does, and others stand by."""
    if context.invoked_subcommand is not None:
        return
    from podplane.cli.agent import access_of
    from podplane.machine import controllers as program
    from podplane.machine import controllers_configuration

    found = controllers_configuration.read(config)
    program.run(access_of(kubeconfig), found)


@controllers.command()
def rbac() -> None:
    """Print what controllers may do in the API, as objects for `kubectl apply -f -`."""
    import yaml

    from podplane.machine.rbac import CONTROLLERS, manifests

    click.echo(yaml.safe_dump_all(manifests(CONTROLLERS), sort_keys=False), nl=False)
