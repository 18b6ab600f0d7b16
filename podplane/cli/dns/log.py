"""The command `podplane dns log`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
import msgspec

from podplane.cli.nodes import Question, ask
from podplane.cli.options import connect, lab_or_cluster, namespace, showing_who_asks
from podplane.cli.where import Where, what
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.model.name_server import QueryLine, QueryLines

PORT = 9153
POLL_SECONDS = 0.5
HOW = "kubectl -n kube-system edit configmap podplane-dns"


@click.command()
@lab_or_cluster
@namespace
@click.option("-f", "--follow", is_flag=True, help="Go on until it is interrupted.")
@click.option("--pod", metavar="[NAMESPACE/]POD", help="Questions of this pod alone.")
@click.option("--for", "wanted", metavar="NAME", help="Questions for this name, and what is below it, alone.")
@click.option("--node", default="", help="What this node was asked alone.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="For programs: an object a line.")
def log(where: Where, namespace: str, follow: bool, pod: str | None, wanted: str | None, node: str, output: str | None) -> None:
    """Show the questions for names that are logged: who asked what, what was answered, by whom, in how many microseconds.

    The configuration of the cluster's DNS says which are, by pod or by name (`log`). The last 1000 of each node are shown.
    """
    from podplane.cli.dns.arguments import check_name
    from podplane.cli.names import place

    if pod is not None:
        pod = "/".join(place(pod, namespace))
    if wanted is not None:
        check_name(wanted)
    client = connect(where)
    wants = _filter(pod, wanted)
    lines = _Lines(client, _nodes(client, node, what(where)))
    first = lines.next()
    if not lines.is_logged(pod):
        which = f"questions of {pod} are not logged" if pod and lines.logged else "nothing is logged"
        raise LabError(f"{which}: `{HOW}`, and write log: {{pods: [{pod or 'default/web-1'}]}} there, or log: {{names: [.]}}")
    _show(filter(wants, first), output)
    renew = showing_who_asks(where, client)
    while follow:
        time.sleep(POLL_SECONDS)
        renew()
        _show(filter(wants, lines.next()), output)


def _nodes(client: Any, node: str, what: str) -> list[str]:
    names = sorted(one["metadata"]["name"] for one in client.objects("nodes"))
    if node and node not in names:
        raise LabError(f"there is no node {node!r}: this {what} has {', '.join(names) or 'none'}")
    return [node] if node else names


def _filter(pod: str | None, name: str | None) -> Callable[[QueryLine], bool]:
    end = "" if name is None else f".{name.lower().strip('.')}."
    return lambda line: (pod is None or line.pod == pod) and (len(end) < 3 or f".{line.name}".endswith(end))


def _show(lines: Iterator[QueryLine], output: str | None) -> None:
    from podplane.nameserver.query_log import text

    for line in lines:
        click.echo(msgspec.json.encode(line) if output else text(line))


class _Lines:
    """Lines of several nodes, each once, in the order of their times."""

    def __init__(self, client: Any, nodes: Sequence[str]) -> None:
        self._client = client
        self._after: dict[str, int] = dict.fromkeys(nodes, 0)
        self._silent: set[str] = set()
        self.logged: set[str] = set()
        """What the configuration says that is logged: pods, and names."""

    def is_logged(self, pod: str | None) -> bool:
        """May there be lines, of this pod if one is wanted?"""
        if pod is None or any(one.endswith(".") for one in self.logged):
            return bool(self.logged)
        return any(pod.startswith(one[:-1]) if one.endswith("*") else one == pod for one in self.logged)

    def next(self) -> list[QueryLine]:
        """Those that are new. LabError when no node answers."""
        answers = ask(self._client, [Question(node, PORT, f"log/{after}", QueryLines) for node, after in self._after.items()])
        failed = {question.node: answer for question, answer in answers.items() if isinstance(answer, ApiError)}
        self._tell(failed)
        found = []
        for question, answer in answers.items():
            if question.node not in failed:
                found += self._taken(question.node, msgspec.convert(answer, QueryLines))
        return sorted(found, key=lambda line: (line.time, line.number))

    def _tell(self, failed: Mapping[str, ApiError]) -> None:
        if failed and len(failed) == len(self._after) and not self.logged:
            node, error = next(iter(failed.items()))
            raise LabError(f"the name server of {node} does not answer: {error}")
        for node in failed.keys() - self._silent:
            click.echo(f"the name server of {node} does not answer: {failed[node]}", err=True)
        self._silent = set(failed)

    def _taken(self, node: str, lines: QueryLines) -> list[QueryLine]:
        if lines.number < self._after[node]:  # the name server was started again, and counts anew
            self._after[node] = 0
            return []
        self._after[node] = lines.number
        self.logged = {*lines.pods, *lines.names}
        return lines.lines
