"""A name looked up as a resolver does it, each question explained by the name server of the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from podplane.cli.dns import statuses, tries
from podplane.cli.dns.asking import Asking
from podplane.cli.names import some
from podplane.cli.nodes import Question, ask
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.model.config import NAME_SERVER_PORT
from podplane.model.name_server import Explanation

Object = dict[str, Any]
PATIENCE_SECONDS = 9.0
"""For one name: the server may wait for others."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What was asked for by whom, and the answers to each name in turn. `in_hosts`: the addresses that /etc/hosts has, so that nobody is
    asked."""

    who: Asking
    name: str
    types: Sequence[str]
    in_hosts: Sequence[str] = ()
    tried: list[list[Object]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def data(self) -> list[str]:
        """What a program gets in the end."""
        return list(self.in_hosts) or (tries.data(self.tried[-1]) if self.tried else [])

    def document(self) -> Object:
        """For programs."""
        return {
            "name": self.name,
            "types": list(self.types),
            "from": self.who.document(),
            "hosts": list(self.in_hosts),
            "tries": [{"name": answers[0]["name"], "answers": answers} for answers in self.tried],
            "remarks": self.remarks,
            "result": self.data,
        }


def look_up(client: Any, who: Asking, name: str, types: Sequence[str], undo: Callable[[str], str]) -> Answered:
    """Ask for one name after the other until one has an answer; `undo` is the command that ends a node's faults. LabError when
    no server answers."""
    in_hosts = tries.hosts_entry(name, who.hosts) if set(types) & {"A", "AAAA"} else []
    if in_hosts:
        return Answered(who, name, types, in_hosts)
    if not who.asks_cluster:
        return Answered(who, name, types)
    server, notes = _server(client, who.node, undo)
    who = replace(who, notes=[*who.notes, *notes])
    tried: list[list[Object]] = []
    for one in tries.names(name, who.conf):
        tried.append(_explained(client, server, who.ip, one, types))
        if tries.is_end(tried[-1]):
            break
    return Answered(who, name, types, tried=tried, remarks=list(tries.remarks(name, who.conf, tried)) if who.pod else [])


def _server(client: Any, node: str, undo: Callable[[str], str]) -> tuple[str, list[str]]:
    """Whose server answers: the node's own, or, while that does not, another one, as for questions; and what is to be said about it."""
    manifests = statuses.nodes(client)
    (own,) = statuses.of_nodes(client, [manifests[node]], undo)
    why = _why_not(own)
    if not why:
        return node, []
    others = statuses.of_nodes(client, [one for name, one in manifests.items() if name != node], undo)
    answering = next((one["node"] for one in others if not _why_not(one)), "")
    if not answering and "error" in own:
        raise LabError(f"no name server answers; that of {node}: {why}")
    if not answering:
        return node, [f"the name server of {node} answers no questions yet, and no other one does: {why}"]
    return answering, [f"the name server of {node} does not answer: that of {answering} is asked in its place ({why})"]


def _why_not(status: Object) -> str:
    """Why a server answers no questions; "" when it does."""
    missing = status.get("missing", ())
    return str(status.get("error") or (f"it waits for {some(missing)}" if missing else ""))


def _explained(client: Any, server: str, ip: str, name: str, types: Sequence[str]) -> list[Object]:
    """What this node's server answers to one name, for each type."""
    place = quote(name, safe="")
    questions = [
        Question(server, NAME_SERVER_PORT, f"query/{place}/{type_}/{quote(ip, safe='')}", Explanation) for type_ in types
    ]
    answers = ask(client, questions, PATIENCE_SECONDS)
    found: list[Object] = []
    for question in questions:
        answer = answers[question]
        if isinstance(answer, ApiError):
            raise LabError(f"the name server of {server} does not answer: {answer}")
        found.append(answer)
    return found
