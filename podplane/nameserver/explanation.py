"""What a name is answered, and why, for people: asked of the same sources as a question that comes by a socket."""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from podplane.dns import message as m
from podplane.dns import protocol, response_text
from podplane.dns.directory import Directory
from podplane.dns.message import Answer, Name, Query, Question
from podplane.dns.reasons import reason
from podplane.model.name_server import Explanation, RecordText
from podplane.nameserver.answers import ANY_TTL, as_hinfo
from podplane.nameserver.resolver import Client, Resolving


class Unanswerable(ValueError):
    """The question is none; a sentence says why."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains answers. `client_of` says who has an address: None for somebody outside of the cluster."""

    resolver: Resolving
    client_of: Callable[[str], Client | None]
    directory: Directory
    domain: Name

    async def explain(self, name: str, type_: str, ip: str) -> Explanation:
        """What this name is answered to who has this address. Unanswerable when one of them is none."""
        question, ip = _question(name, type_), _address(ip)
        client = self.client_of(ip)
        if client is None:
            answer = Answer(m.REFUSED, authoritative=False, source="who may ask")
            return self._explained(question, Client(ip), answer, f"{ip} is outside of the cluster")
        query = Query(0, m.RD, m.asked_of(question), m.Edns(m.TCP_BYTES))
        if (refused := protocol.answer(query, "", "")) is not None:
            return self._explained(question, client, refused, "it asks for what is not answered here")
        found = self.resolver.answer(as_hinfo(query) if question.type == m.ANY else query, client)
        answer = await found if inspect.isawaitable(found) else found
        return self._explained(
            question, client, protocol.any_of(query, answer, ANY_TTL) if question.type == m.ANY else answer, ""
        )

    def _explained(self, question: Question, client: Client, answer: Answer, why: str) -> Explanation:
        read = response_text.read(answer.message or m.respond(Query(0, m.RD, m.asked_of(question)), answer))
        if not why and answer.authoritative and question.type != m.ANY:
            why = self._reason(question, read.records)
        return Explanation(
            name=m.text_of(question.name),
            type=response_text.type_text(question.type),
            client=client.ip,
            pod=f"{client.namespace}/{client.pod}" if client.pod else "",
            rcode=read.rcode,
            source=answer.source,
            records=read.records,
            authority=read.authority,
            why=why,
        )

    def _reason(self, question: Question, records: Sequence[RecordText]) -> str:
        """Why there is no record of the type that is asked for, at the name or where its aliases lead; "" when there is."""
        if any(one.type == response_text.type_text(question.type) for one in records):
            return ""
        ends = [one.data for one in records if one.type == "CNAME"]
        try:
            name = m.name_of(ends[-1]) if ends else question.name
        except ValueError:
            return ""  # a name with bytes that are written as numbers
        return reason(Question(name, question.type), self.directory, self.domain)


def _question(name: str, type_: str) -> Question:
    text = unquote(name)
    try:
        return Question(m.name_of(text), response_text.type_of(unquote(type_)))
    except UnicodeEncodeError:
        raise Unanswerable(f"{text!r} has letters that DNS does not have: write it in its ASCII form (xn--…)") from None
    except ValueError as error:
        raise Unanswerable(str(error)) from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(unquote(text)))
    except ValueError:
        raise Unanswerable(f"{text!r} is no address of who asks") from None
