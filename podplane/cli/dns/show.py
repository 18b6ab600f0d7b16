"""What the commands about names found out, for humans. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podplane.cli import tables
from podplane.cli.dns import tries
from podplane.cli.dns.answered import Answered
from podplane.cli.dns.asking import Asking
from podplane.dns.message import name_of
from podplane.dns.reasons import address_of
from podplane.model.words import counted

Object = dict[str, Any]
RECORDS_SHOWN = 20
"""Of one answer."""


def answered(found: Answered) -> str:
    """A name that was looked up: who asks, each question, the end."""
    lines = [_head(found.who), *(f"  note        {tables.plain(note)}" for note in found.who.notes)]
    if found.tried:
        rows = [["  NAME", "TYPE", "ANSWER", "TTL", "FROM"], *(row for answers in found.tried for row in _rows(answers))]
        lines += ["", tables.table(rows)]
    lines += [f"  note        {tables.plain(remark)}" for remark in found.remarks]
    return "\n".join([*lines, "", _end(found)])


def _head(who: Asking) -> str:
    what = f"{who.who[:1].upper()}{who.who[1:]}"
    where = f" on {who.node}" if who.pod else ""
    policy = f", dnsPolicy {who.policy}" if who.policy else ""
    lines = [f"{what}{where} asks from {who.ip}{policy}"]
    lines.append(f"  servers     {', '.join(who.conf.nameservers) or 'none'}")
    if who.pod:
        lines.append(f"  search      {' '.join(who.conf.searches) or 'nothing'}")
        lines.append(f"  ndots       {who.conf.ndots}")
    return "\n".join(lines)


def _rows(answers: list[Object]) -> Iterator[list[str]]:
    """A row for each record; the name stands in the first. Types without any share a row when the same is said of them."""
    nothing: dict[tuple[str, str, str], list[str]] = {}
    rows: list[list[str]] = []
    for one in answers:
        rows += _of_records(one)
        if not tries.data([one]) and one["records"]:
            rows.append(["", *_of_nothing(one)])
        elif not one["records"]:
            nothing.setdefault(_of_nothing(one), []).append(one["type"])
    rows += [[", ".join(types), *cells] for cells, types in nothing.items()]
    for number, row in enumerate(rows):
        yield ["" if number else f"  {answers[0]['name']}", *row]


def _of_nothing(one: Object) -> tuple[str, str, str]:
    """Answer, TTL and source where there is no record of the type."""
    what = "no such record" if one["rcode"] == "NOERROR" else one["rcode"]
    return what, _negative_ttl(one), one["why"] or one["source"]


def _of_records(one: Object) -> Iterator[list[str]]:
    """Type, answer, TTL and source of each record of the answer to one question."""
    records = one["records"]
    for number, record in enumerate(records[:RECORDS_SHOWN]):
        alias = "" if record["type"] == one["type"] else f"{record['type']} "
        yield ["" if number else one["type"], f"{alias}{record['data']}", f"{record['ttl']} s", "" if number else one["source"]]
    if len(records) > RECORDS_SHOWN:
        yield ["", f"and {len(records) - RECORDS_SHOWN:,} more", "", ""]


def _negative_ttl(one: Object) -> str:
    """For how long resolvers may keep that there is nothing (RFC 2308, section 5): the lesser of the SOA's TTL and its last number."""
    for record in one["authority"]:
        last = record["data"].rpartition(" ")[2]
        if record["type"] == "SOA" and last.isdecimal():
            return f"{min(record['ttl'], int(last))} s"
    return ""


def _end(found: Answered) -> str:
    who, name = found.who.pod or found.who.node, address_of(name_of(found.name)) or found.name
    if found.in_hosts:
        return f"{who} gets {', '.join(found.in_hosts)} for {name} from its /etc/hosts: it asks nobody."
    if not found.who.asks_cluster:
        return f"What {who} gets for {name} is not known: it does not ask the cluster's DNS."
    questions = counted(sum(map(len, found.tried)), "question")
    data = list(dict.fromkeys(found.data))
    shown = ", ".join(data[:5]) + (f" and {len(data) - 5:,} more" if len(data) > 5 else "")
    if data:
        return tables.plain(f"{who} gets {shown} for {name}, after {questions}.")
    asked = " or ".join(found.types)
    return f"{who} gets no {asked} record for {name}, after {questions}." + (_hint(found) if not found.who.pod else "")


def _hint(found: Answered) -> str:
    """A node's resolver has no search domains of the cluster."""
    if found.name.endswith(".") or found.name.count(".") > 1:
        return ""
    return (
        f" A node has no search domains of the cluster: `--from` a pod, or write {found.name}.default.svc.{found.who.domain}."
    )
