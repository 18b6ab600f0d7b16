"""The command `podplane status`: of a lab, or of the agents of its nodes."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from podplane.cli import tables
from podplane.cli.fault import active_faults
from podplane.cli.names import some
from podplane.cli.options import connect, lab_or_cluster
from podplane.cli.where import OfKubeconfig, Where, what
from podplane.lab.errors import LabError
from podplane.lab.folder import LOG, Folder, labs
from podplane.model.words import lasting

NOT_RUNNING, NOT_AS_WANTED = 3, 1
"""Exit status for a lab that doesn't run, as init scripts have it (LSB); for a node that does not answer, or with something refused,
blocked or done without."""
ALL = "all"
OVERVIEW_SECONDS = 2.0
"""So long agents and name servers have to answer when a lab is looked at, all of them together: the others are told as silent."""


@click.command()
@lab_or_cluster
@click.option("--node", help="The agent of this node, or of all nodes: what is not as wanted, and why.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="With --node: for programs.")
def status(where: Where, node: str | None, output: str | None) -> None:
    """Say whether a lab runs, and what is in it. Exit status 3 when it doesn't. (Of a cluster: `podplane cluster status`.)

    With --node: the state of the node's agent. Exit status 1 when it does not answer, and when something
    on it is refused, blocked or done without.
    """
    if output and not node:
        raise LabError("-o is for --node: say which node, or all")
    if isinstance(where, OfKubeconfig):
        if not node:
            raise LabError(f"say which node, or all, by --node; of the whole cluster: `{where.command('cluster status')}`")
        _of_nodes(where, node, output)
        return
    folder = where
    if folder.holder() is None:
        others = [name for name in labs() if Folder.named(name).holder() is not None]
        hint = f" Running: {', '.join(others)}." if others else ""
        click.echo(f"Lab {folder.name!r} is not running; `{folder.command('up')}` starts it.{hint}")
        sys.exit(NOT_RUNNING)
    if node:
        _of_nodes(folder, node, output)
    else:
        _of_lab(folder)


def _of_lab(folder: Folder) -> None:
    client, endpoint = connect(folder), folder.endpoint()
    nodes, pods = _nodes(client), client.objects("pods")
    click.echo(f"Lab {folder.name!r} has been running for {lasting(time.time() - endpoint.started)}.")
    click.echo(f"  nodes   {len(nodes)}")
    click.echo(f"  pods    {tables.readiness(pods)}")
    click.echo(f"  API     https://{endpoint.host}:{endpoint.port}")
    click.echo(f"  state   {folder.path}")
    if why := client.failure("etcd"):  # as the check of the store is called in Kubernetes
        click.echo(f"  writes  refused: {why}")
    for line in active_faults(folder, nodes.values()):
        click.echo(f"  fault   {line}")
    from podplane.cli.backend import not_counted
    from podplane.cli.dns import show_status, statuses
    from podplane.cli.nodes import ask
    from podplane.cli.status import gather, peers, show

    if line := not_counted(client):
        click.echo(f"  backend {line}")
    of_servers, of_agents = statuses.questions(nodes), gather.summary_questions(nodes)
    answers = ask(client, [*of_agents.values(), *of_servers], OVERVIEW_SECONDS, OVERVIEW_SECONDS)
    if line := show_status.summary(statuses.of_answers(answers, of_servers, nodes, folder.undo_faults)):
        click.echo(f"  names   {line}: `{folder.command('dns status')}`")
    summaries = gather.summaries(answers, of_agents)
    if line := show.summary(summaries):
        click.echo(f"  agents  {line}: `{folder.command('status', '--node all')}`")
    for line in peers.lines(summaries):
        click.echo(f"  paths   {line}")
    if line := show.unforeseen(client.unforeseen(), time.time()):
        click.echo(f"  errors  {line}: {folder.path / LOG}")


def _of_nodes(where: Where, node: str, output: str | None) -> None:
    from podplane.cli.status import gather, show

    client = connect(where)
    nodes = _nodes(client)
    if node != ALL and node not in nodes:
        raise LabError(f"there is no node {node!r}: this {what(where)} has {some(list(nodes))}")
    chosen = nodes.values() if node == ALL else [nodes[node]]
    found = gather.statuses(client, chosen, where.undo_faults)
    if output:
        click.echo(tables.document_text({"nodes": found} if node == ALL else found[0], output))
    else:
        click.echo("\n\n".join(map(show.node, found)))
    if not all(map(gather.is_as_wanted, found)):
        sys.exit(NOT_AS_WANTED)


def _nodes(client: Any) -> dict[str, Any]:
    """By name, in the order of their numbers."""
    found = {one["metadata"]["name"]: one for one in client.objects("nodes")}
    return {name: found[name] for name in sorted(found, key=lambda name: (len(name), name))}
