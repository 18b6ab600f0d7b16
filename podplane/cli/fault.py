"""`podplane fault`: things that go wrong in a cluster, made to happen in a lab."""

from __future__ import annotations

import secrets
from typing import Any

import click

from podplane.cli.names import some
from podplane.cli.options import connect, lab_name
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.config import RESTART, RESTARTED

WAIT_SECONDS = 60.0


@click.command()
@lab_name
@click.argument("node")
@click.option("--restart-agent", is_flag=True, help="The node's agent ends and starts again; its packets must not notice.")
def fault(folder: Folder, node: str, restart_agent: bool) -> None:
    """Let something go wrong on NODE."""
    if not restart_agent:
        raise LabError("say what is to happen: --restart-agent")
    client, wish = connect(folder), secrets.token_hex(4)
    names = [one["metadata"]["name"] for one in client.objects("nodes")]
    if node not in names:
        raise LabError(f"there is no node {node!r}: this lab has {some(names)}")
    client.patch("nodes", "", node, {"metadata": {"annotations": {RESTART: wish}}})

    def answer(nodes: list[dict[str, Any]]) -> str:
        found: dict[str, Any] = next((n for n in nodes if n["metadata"]["name"] == node), {"metadata": {}})
        text: str = found["metadata"].get("annotations", {}).get(RESTARTED, "")
        return text if text.startswith(wish) else ""

    done = ""
    for nodes in client.poll("nodes", "", answer, WAIT_SECONDS):
        done = answer(nodes)
    if not done:
        raise LabError(f"the agent of {node} did not start again within {WAIT_SECONDS:.0f} s: `{folder.command('status')}`")
    told = dict(part.split("=") for part in done.split()[1:])
    wrote = "wrote nothing to the kernel" if told["changes"] == "0" else f"wrote {told['changes']} changes to the kernel"
    click.echo(f"The agent of {node} started again in {told['milliseconds']} ms and {wrote}.")
