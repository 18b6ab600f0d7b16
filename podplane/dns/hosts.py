"""Names and addresses that the configuration gives (`hosts`): A, AAAA and PTR; of other types these names have nothing.

What is below such a name is asked elsewhere: an entry is a name, not a zone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Question, Record, name_of
from podplane.dns.negative import CONFIG, negative


class Hosts:
    """Entries: address → names."""

    def __init__(self, entries: Mapping[str, tuple[Name, ...]], ttl: int) -> None:
        self._ttl = ttl
        self._records: dict[Name, list[Record]] = {}
        for text, names in entries.items():
            ip = ipaddress.ip_address(text)
            type_ = m.A if ip.version == 4 else m.AAAA
            reverse = name_of(ip.reverse_pointer)
            for name in names:
                self._records.setdefault(name, []).append(Record(name, type_, ttl, ip.packed))
                self._records.setdefault(reverse, []).append(Record(reverse, m.PTR, ttl, m.written(name)))

    @property
    def ends(self) -> Collection[Name]:
        """As `zone.Zone` has it."""
        return self._records.keys()

    def answer(self, question: Question) -> Answer | None:
        """The records of a name; None when there is no entry for it."""
        every = self._records.get(question.name)
        if every is None:
            return None
        source = "hosts entry of the configuration"
        records = tuple(one for one in every if one.type == question.type)
        if not records:
            return negative(question.name, self._ttl, source)
        return Answer(records=records, source=source, depends=CONFIG)
