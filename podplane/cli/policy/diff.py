"""The command `podplane policy diff`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from podplane.cli.options import connect, lab_or_cluster, namespace
from podplane.cli.policy.files import known_objects, tell_others, text_of
from podplane.cli.tables import document_text, plain
from podplane.cli.where import Where

if TYPE_CHECKING:
    from podplane.model.answers import SeenFlow

DIFFERENT = 1
"""Exit status when some flow would fare otherwise."""


@click.command()
@lab_or_cluster
@namespace
@click.option(
    "-f", "--filename", "file", type=click.File("r", encoding="utf-8"), required=True, help="A file; - is standard input."
)
@click.option("--delete", is_flag=True, help="What deleting its policies would change.")
@click.option("--each", is_flag=True, help="Flows of each pod, however many: not of those together that no policy tells apart.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="For programs.")
def diff(where: Where, namespace: str, file: TextIO, delete: bool, each: bool, output: str | None) -> None:
    """Show all flows that would be denied, or allowed, if a file were applied: its NetworkPolicies, and labels of its Namespaces and Pods.

    Nothing is changed. Exit status 1: there are such flows.
    """
    from podplane.cli.policy.cluster import cluster
    from podplane.cli.policy.proposed import check_namespaces, documents, proposal
    from podplane.policy.difference import differences
    from podplane.policy.told import told

    objects, client = documents(text_of(file), file.name), connect(where)
    found = proposal(objects, known_objects(client, {one["kind"] for one in objects}), namespace, delete=delete)
    compared = "NetworkPolicies that go" if delete else "NetworkPolicies, and labels of Namespaces and Pods"
    tell_others(found.passed_over, "compared", compared)
    known = cluster(client)
    check_namespaces(found, known.index)
    pods = [*known.pods.values(), *([] if known.dns is None else [known.dns])]
    changed = told(differences(known.index, pods, list(known.nodes.values()), found.edits), each=each)
    if changed:
        seen, denied = _seen(client, sorted(known.nodes))
        changed = [one.with_seen(seen, denied) for one in changed]
    if output:
        click.echo(document_text({one.word: [*one.documents()] for one in changed}, output))
    else:
        for line in _lines(changed):
            click.echo(line)
    if changed:
        sys.exit(DIFFERENT)


def _seen(client: Any, nodes: Sequence[str]) -> tuple[list[SeenFlow], list[SeenFlow]]:
    """What nodes saw in the last hour, and what they denied."""
    import msgspec

    from podplane.cli.nodes import Question, ask
    from podplane.kubeapi.errors import ApiError
    from podplane.model.answers import SeenFlows
    from podplane.model.config import AGENT_PORT

    found: list[SeenFlow] = []
    denied: list[SeenFlow] = []
    for one, answer in ask(client, [Question(node, AGENT_PORT, "flows", SeenFlows) for node in nodes]).items():
        said = None if isinstance(answer, ApiError) else msgspec.convert(answer, SeenFlows)
        if said is not None:
            found += said.flows
            denied += said.denied
        if why := str(answer) if said is None else said.error:
            click.echo(f"{one.node} does not say what it saw in the last hour: {why}", err=True)
    return found, denied


def _lines(changed: Sequence[Any]) -> Iterator[str]:
    for one in changed:
        yield f"{one.head}:"
        yield from (f"  {plain(line)}" for line in one.lines())
    if not changed:
        yield "No flow would be denied that is allowed, nor allowed that is denied."
