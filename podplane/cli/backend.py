"""`podplane backend`: how packets get from node to node, and another way for all nodes while they run."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from podplane.agent.planner import NOT_APPLIED
from podplane.cli import unreached
from podplane.cli.names import some
from podplane.cli.options import connect, lab_name
from podplane.cli.tables import table
from podplane.cli.waiting import telling
from podplane.kubeapi.errors import NotFound
from podplane.lab import preflight
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.config import NetworkConfig
from podplane.routes import ways
from podplane.routes.cluster_settings import BACKEND, CROSS_SUBNET, NAME, NAMESPACE, ClusterSettingsError, applied
from podplane.routes.table import NAMES, chosen
from podplane.routes.underlay import addresses
from podplane.state.ledger import MAX_RETRY_SECONDS

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
            click.echo(_not_counted(why))
        else:
            click.echo(f"Nodes reach each other's pods by {_words(data)}; there are {', '.join(NAMES)}.")
        rows = [
            [name, ",".join(sorted(ways.reached_by(node) or ())) or "any"] for name, node in unreached.nodes_of(client).items()
        ]
        click.echo(table([["NODE", "REACHED-BY"], *rows]))
        name = "" if why else applied(data, NetworkConfig(cluster_cidrs=())).backend
        if late := _late(client, name) if name else []:
            click.echo(f"{_not_yet(late, name)}. See: `{folder.command('status', '--node all')}`.")
        if said := unreached.tunnelled_note(folder, client):
            click.echo(said)
        if said := unreached.note(folder, unreached.in_lab(folder, client)):
            click.echo(said)


@backend.command("set")
@lab_name
@click.argument("backend_name", metavar="NAME")
@click.option(
    "--cross-subnet", default="", help="With host-gw, the tunnel to nodes of other subnets: vxlan or gre.  [default: none]"
)
@click.pass_context
def set_(context: click.Context, folder: Folder, backend_name: str, cross_subnet: str) -> None:
    """Have nodes reach each other by the backend NAME from now on. Connections go on."""
    folder, name = _of_group_or_own(context, folder), _chosen(backend_name, cross_subnet)
    client = connect(folder)
    found = _config_map(client)
    data = {BACKEND: backend_name, **({CROSS_SUBNET: cross_subnet} if cross_subnet else {})}
    former = {key: text for key, text in (found.get("data") or {}).items() if key not in (BACKEND, CROSS_SUBNET)}
    if why := _why_not({**former, **data}):
        raise LabError(f"nodes take nothing of the ConfigMap {NAMESPACE}/{NAME} as it is: {why}")
    versions = {version for node in unreached.nodes_of(client).values() for version in addresses(node)}
    preflight.check_backend(name, versions, backend_name + (f" --cross-subnet {cross_subnet}" if cross_subnet else ""))
    if found:
        client.patch(CONFIGMAPS, NAMESPACE, NAME, {"data": {CROSS_SUBNET: None, **data}})
    else:
        client.create(CONFIGMAPS, NAMESPACE, {"metadata": {"name": NAME}, "data": data})
    _wait(client, name)
    words = _words(data)
    if said := unreached.note(folder, unreached.in_lab(folder, client)):
        click.echo(f"All nodes have the backend {words}. {said}")
    else:
        click.echo(f"All nodes are reached by {words}. See: `{folder.command('check')}`.")


def _chosen(name: str, tunnel: str) -> str:
    """The name of the backend of the table. LabError when there is none such."""
    try:
        chosen(name)
    except ValueError as error:
        raise LabError(str(error)) from None
    try:
        return chosen(name, tunnel).name
    except ValueError as error:
        raise LabError(f"--cross-subnet {tunnel}: {error}") from None


def _words(data: Mapping[str, str]) -> str:
    """What the cluster says, in words."""
    name, tunnel = data.get(BACKEND, DEFAULT), data.get(CROSS_SUBNET, "")
    return f"{name}, and by {tunnel} those of other subnets" if tunnel else name


def _of_group_or_own(context: click.Context, own: Folder) -> Folder:
    """The lab that --name says after `backend` or after `set`. LabError when these contradict each other."""
    of_group: Folder = context.obj
    if context.get_parameter_source("name") is not ParameterSource.COMMANDLINE or own.name == of_group.name:
        return of_group
    group = context.parent
    if group is not None and group.get_parameter_source("name") is ParameterSource.COMMANDLINE:
        raise LabError(f"--name says {of_group.name} and {own.name}: leave one of them out")
    return own


def not_counted(client: Any) -> str:
    """That the cluster's settings do not count, and why; "" where they do, or there are none."""
    why = _why_not(_config_map(client).get("data") or {})
    return _not_counted(why) if why else ""


def _not_counted(why: str) -> str:
    return f"The ConfigMap {NAMESPACE}/{NAME} does not count, and nodes go on with what they had: {why}"


def _why_not(data: Mapping[str, str]) -> str:
    try:
        applied(data, NetworkConfig(cluster_cidrs=()))
    except ClusterSettingsError as error:
        return str(error)
    return ""


def _wait(client: Any, name: str) -> None:
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=MAX_RETRY_SECONDS)

    def why(late: list[str]) -> str:
        return next((f"{node}: {said}" for node in late if (said := _refused(client, node, since))), "")

    end, tell = time.monotonic() + WAIT_SECONDS, telling(some, why)
    while late := _late(client, name):
        if time.monotonic() > end:
            raise LabError(": ".join(filter(None, (_not_yet(late, name), why(late)))))
        tell(late)
        time.sleep(AGAIN_SECONDS)


def _refused(client: Any, node: str, since: datetime.datetime) -> str:
    """What the kernel of this node has said no to since then, by its events: links, or else what was last; "" when nothing was.

    What it goes on to refuse is tried again, and told, once in MAX_RETRY_SECONDS at least; with a link, all that lies on it is refused.
    """
    selector = f"type=Warning,reason={NOT_APPLIED},involvedObject.kind=Node,involvedObject.name={node}"
    times = {event["message"]: event["lastTimestamp"] for event in client.objects("events", "default", fieldSelector=selector)}
    said = [("create link" in text, at, text) for text, at in times.items() if datetime.datetime.fromisoformat(at) >= since]
    return max(said)[2] if said else ""


def _late(client: Any, name: str) -> list[str]:
    """Nodes that can't be reached by this backend."""
    return [node for node, one in unreached.nodes_of(client).items() if name not in (ways.reached_by(one) or {name})]


def _not_yet(late: list[str], name: str) -> str:
    return f"{some(late)} can't be reached by {name} yet; until then the former backend goes on there"


def _config_map(client: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = client.get(CONFIGMAPS, NAMESPACE, NAME)
    except NotFound:
        return {}
    return found
