"""`podplane backend`: how packets get from node to node, and another way for all nodes while they run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from podplane.cli import unreached
from podplane.cli.names import some
from podplane.cli.options import connect, lab_name
from podplane.cli.tables import table
from podplane.cli.waiting import telling
from podplane.kubeapi.errors import NotFound
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.config import NetworkConfig
from podplane.routes import ways
from podplane.routes.cluster_settings import BACKEND, NAME, NAMESPACE, ClusterSettingsError, applied
from podplane.routes.table import BY_NAME

CONFIGMAPS = "configmaps"
WAIT_SECONDS, AGAIN_SECONDS = 60.0, 0.1
DEFAULT = NetworkConfig(cluster_cidrs=()).backend


@click.group(invoke_without_command=True)
@lab_name
@click.pass_context
def backend(context: click.Context, folder: Folder) -> None:
    """Show by which backend nodes reach each other's pods; `set` changes it."""
    context.obj = folder
    if context.invoked_subcommand is None:
        client = connect(folder)
        data = _config_map(client).get("data") or {}
        if why := _why_not(data):
            click.echo(f"The ConfigMap {NAMESPACE}/{NAME} does not count, and nodes go on with what they had: {why}")
        else:
            click.echo(f"Nodes reach each other's pods by {data.get(BACKEND, DEFAULT)}; there are {', '.join(BY_NAME)}.")
        rows = [
            [name, ",".join(sorted(ways.reached_by(node) or ())) or "any"] for name, node in unreached.nodes_of(client).items()
        ]
        click.echo(table([["NODE", "REACHED-BY"], *rows]))
        if said := unreached.note(folder, unreached.in_lab(folder, client)):
            click.echo(said)


@backend.command("set")
@lab_name
@click.argument("backend_name", metavar="NAME")
@click.pass_context
def set_(context: click.Context, folder: Folder, backend_name: str) -> None:
    """Have nodes reach each other by the backend NAME from now on. Connections go on."""
    folder, name = _of_group_or_own(context, folder), backend_name
    if name not in BY_NAME:
        raise LabError(f"there is no backend {name!r}: choose one of {', '.join(BY_NAME)}")
    client = connect(folder)
    found, data = _config_map(client), {BACKEND: name}
    if why := _why_not({**(found.get("data") or {}), **data}):
        raise LabError(f"nodes take nothing of the ConfigMap {NAMESPACE}/{NAME} as it is: {why}")
    if found:
        client.patch(CONFIGMAPS, NAMESPACE, NAME, {"data": data})
    else:
        client.create(CONFIGMAPS, NAMESPACE, {"metadata": {"name": NAME}, "data": data})
    _wait(client, name)
    if said := unreached.note(folder, unreached.in_lab(folder, client)):
        click.echo(f"All nodes have the backend {name}. {said}")
    else:
        click.echo(f"All nodes are reached by {name}. See: `{folder.command('check')}`.")


def _of_group_or_own(context: click.Context, own: Folder) -> Folder:
    """The lab that --name says after `backend` or after `set`. LabError when these contradict each other."""
    of_group: Folder = context.obj
    if context.get_parameter_source("name") is not ParameterSource.COMMANDLINE or own.name == of_group.name:
        return of_group
    group = context.parent
    if group is not None and group.get_parameter_source("name") is ParameterSource.COMMANDLINE:
        raise LabError(f"--name says {of_group.name} and {own.name}: leave one of them out")
    return own


def _why_not(data: Mapping[str, str]) -> str:
    try:
        applied(data, NetworkConfig(cluster_cidrs=()))
    except ClusterSettingsError as error:
        return str(error)
    return ""


def _wait(client: Any, name: str) -> None:
    end, tell = time.monotonic() + WAIT_SECONDS, telling(some)
    while late := [node for node, one in unreached.nodes_of(client).items() if name not in (ways.reached_by(one) or {name})]:
        if time.monotonic() > end:
            raise LabError(f"{some(late)} can't be reached by {name} yet; until then the former backend goes on there")
        tell(late)
        time.sleep(AGAIN_SECONDS)


def _config_map(client: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = client.get(CONFIGMAPS, NAMESPACE, NAME)
    except NotFound:
        return {}
    return found
