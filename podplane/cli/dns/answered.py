"""A name looked up as a resolver does it, each question explained by the name server of the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from podplane.cli.dns import tries
from podplane.cli.dns.asking import Asking
from podplane.cli.nodes import Question, ask, why_silent
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
    the node's server does not answer."""
    in_hosts = tries.hosts_entry(name, who.hosts) if set(types) & {"A", "AAAA"} else []
    if in_hosts:
        return Answered(who, name, types, in_hosts)
    if not who.asks_cluster:
        return Answered(who, name, types)
    tried: list[list[Object]] = []
    for one in tries.names(name, who.conf):
        tried.append(_explained(client, who, one, types, undo))
        if tries.is_end(tried[-1]):
            break
    return Answered(who, name, types, tried=tried, remarks=list(tries.remarks(name, who.conf, tried)) if who.pod else [])


def _explained(client: Any, who: Asking, name: str, types: Sequence[str], undo: Callable[[str], str]) -> list[Object]:
    """What the node's server answers to one name, for each type."""
    place = quote(name, safe="")
    questions = [
        Question(who.node, NAME_SERVER_PORT, f"query/{place}/{type_}/{quote(who.ip, safe='')}", Explanation) for type_ in types
    ]
    answers = ask(client, questions, PATIENCE_SECONDS)
    found: list[Object] = []
    for question in questions:
        answer = answers[question]
        if isinstance(answer, ApiError):
            node = client.get("nodes", "", who.node)
            raise LabError(f"the name server of {who.node} does not answer: {why_silent(node, answer, undo(who.node))}")
        found.append(answer)
    return found
