"""The command `podplane policy denied`."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

import click

from podplane.cli.options import connect, lab_or_cluster, showing_who_asks
from podplane.cli.where import Where, what

if TYPE_CHECKING:
    from podplane.cli.policy.told import Told
    from podplane.model.answers import DeniedFlows

POLL_SECONDS = 0.5


@click.command()
@lab_or_cluster
@click.option("-f", "--follow", is_flag=True, help="Go on until it is interrupted.")
@click.option("-n", "--namespace", default="", help="What pods and Services of this namespace sent, or were sent, alone.")
@click.option("--node", default="", help="What this node denied alone.")
@click.option("--checks", is_flag=True, help="Also what was sent while `podplane check` ran: it tries what is denied, too.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="For programs: an object a line.")
def denied(where: Where, follow: bool, namespace: str, node: str, checks: bool, output: str | None) -> None:
    """Show what policies denied in the last 10 minutes: when, from whom, to whom, and by which policies; equal packets are one line.

    A node tells apart 100 packets a second for each direction; the others are counted. Names are those that the ends had at that moment.
    """
    from podplane.cli.policy.told import checks_text

    client = connect(where)
    asked = _Asked(client, node, what(where))
    found, more = asked.next()
    found = [one for one in found if not namespace or one.is_about(namespace)]
    if namespace and not found:  # what was denied in one that is gone since is shown
        asked.check_namespace(namespace)
    if not found and not follow and not output:
        click.echo(asked.nothing(namespace))
    wanted = [one for one in found if checks or output or not one.flow.in_check]
    _show(wanted, more, namespace, output)
    if len(wanted) < len(found):
        click.echo(checks_text(len(found) - len(wanted)))
    renew = showing_who_asks(where, client)
    while follow:
        time.sleep(POLL_SECONDS)
        renew()
        found, more = asked.next()
        found = [one for one in found if checks or output or not one.flow.in_check]
        _show([one for one in found if not namespace or one.is_about(namespace)], more, namespace, output)


def _show(found: list[Told], more: int, namespace: str, output: str | None) -> None:
    import msgspec

    from podplane.cli.policy.told import more_text

    for one in found:
        click.echo(msgspec.json.encode(one.document()) if output else one.text())
    if more:
        click.echo(more_text(more, namespace), err=output is not None)


class _Asked:
    """The nodes, asked again and again."""

    def __init__(self, client: Any, node: str, what: str) -> None:
        """`node` "": all; `what` has them: a lab, say. LabError when there is no such node."""
        from podplane.cli.policy.told import Merged
        from podplane.lab.errors import LabError

        names = sorted(one["metadata"]["name"] for one in client.objects("nodes"))
        if node and node not in names:
            raise LabError(f"there is no node {node!r}: this {what} has {', '.join(names) or 'none'}")
        self._client, self._node = client, node
        self._merged = Merged([node] if node else names)
        self._silent: set[str] = set()
        self._answered: dict[str, DeniedFlows] = {}

    def next(self) -> tuple[list[Told], int]:
        """What is new, and how many packets more. LabError when no node has ever answered."""
        import msgspec

        from podplane.cli.nodes import Question, ask
        from podplane.kubeapi.errors import ApiError
        from podplane.model.answers import DeniedFlows
        from podplane.model.config import AGENT_PORT

        asked = [Question(node, AGENT_PORT, f"denied/{after}", DeniedFlows) for node, after in self._merged.after.items()]
        answers = {question.node: answer for question, answer in ask(self._client, asked).items()}
        found = {n: msgspec.convert(one, DeniedFlows) for n, one in answers.items() if not isinstance(one, ApiError)}
        self._answered |= found
        failed = {node: str(one) for node, one in answers.items() if isinstance(one, ApiError)}
        self._tell(failed | {node: one.error for node, one in found.items() if one.error})
        return self._merged.take(found, datetime.datetime.now().astimezone())

    def _tell(self, failed: dict[str, str]) -> None:
        from podplane.lab.errors import LabError

        if failed and not self._answered:
            node, why = next(iter(failed.items()))
            raise LabError(f"{node} does not say what it denies: {why}")
        for node in sorted(failed.keys() - self._silent):
            click.echo(f"{node} does not say what it denies: {failed[node]}", err=True)
        self._silent = set(failed)

    def check_namespace(self, namespace: str) -> None:
        """LabError when there is no such namespace."""
        from podplane.cli.tables import plain
        from podplane.lab.errors import LabError

        if not any(one["metadata"]["name"] == namespace for one in self._client.objects("namespaces")):
            raise LabError(f"there is no namespace {plain(namespace)}")

    def nothing(self, namespace: str) -> str:
        """That there is nothing, and why where that is known."""
        where = f" in namespace {namespace}" if namespace else ""
        if self._answered and all(one.since is None and not one.error for one in self._answered.values()):
            return "Nothing is denied: no policy selects any pod" + (f" of {self._node}." if self._node else ".")
        return f"Nothing was denied{where} in the last 10 minutes."
