"""Places for questions that are on their way to other servers: who holds many gives up one for who holds few.

There are so many in all, and so many of each client. When all are taken, the client that holds most about one zone loses its newest; when
all of a client are, it loses the newest about the zone that it asks most about. So neither a zone whose servers say nothing nor a client
that asks without end keeps others from an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from podplane.dns.asking import Ask
from podplane.dns.message import Answer, Name
from podplane.servers.ranking import Ranking


class Place(msgspec.Struct, eq=False):
    """A client's, that waits for the answer to a question about a name of the zone; `heard` is told."""

    ip: str
    zone: Name
    ask: Ask
    heard: Callable[[Answer], object]


@dataclass(slots=True, eq=False)
class _Share:
    """What one client holds about one zone."""

    places: dict[Place, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Client:
    """All that one client holds."""

    count: int = 0
    shares: dict[Name, _Share] = field(default_factory=dict)


class Places:
    """`total` places, `of_client` of each client at most."""

    def __init__(self, total: int, of_client: int) -> None:
        self._total, self._of_client = total, of_client
        self._count = 0
        self._clients: dict[str, _Client] = {}
        self._ranking: Ranking[_Share] | None = None
        """From when all places were taken until half of them are free: at other times nobody has to give up any to another."""

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Are all taken?"""
        return self._count >= self._total

    def enter(self, place: Place) -> Place | None:
        """Take one; what is given up for it: this one itself when all others stay, None when nothing has to be."""
        client = self._clients.get(place.ip)
        given_up = None
        if self._count >= self._total or (client is not None and client.count >= self._of_client):
            given_up = self._given_up(place, client)
            if given_up is place:
                return place
            self.leave(given_up)
            client = self._clients.get(place.ip)
        if client is None:
            client = self._clients[place.ip] = _Client()
        share = client.shares.get(place.zone)
        if share is None:
            share = client.shares[place.zone] = _Share()
        share.places[place] = None
        client.count += 1
        self._count += 1
        if self._ranking is not None:
            self._ranking.grown(share, len(share.places))
        return given_up

    def leave(self, place: Place) -> None:
        """It is free again; it must have been taken."""
        client = self._clients[place.ip]
        share = client.shares[place.zone]
        del share.places[place]
        client.count -= 1
        self._count -= 1
        if self._ranking is not None:
            self._ranking.shrunk(share, len(share.places))
            if self._count <= self._total // 2:
                self._ranking = None
        if not share.places:
            del client.shares[place.zone]
            if not client.count:
                del self._clients[place.ip]

    def _given_up(self, place: Place, client: _Client | None) -> Place:
        share = client.shares.get(place.zone) if client is not None else None
        own = len(share.places) if share is not None else 0
        if client is not None and client.count >= self._of_client:
            most = max(client.shares.values(), key=lambda one: len(one.places))
            loser = most if len(most.places) > own + 1 else None
        else:
            if self._ranking is None:
                self._ranking = self._ranked()
            loser = self._ranking.first(own)
        return place if loser is None else next(reversed(loser.places))

    def _ranked(self) -> Ranking[_Share]:
        """All shares by their sizes."""
        ranking: Ranking[_Share] = Ranking(self._of_client)
        for client in self._clients.values():
            for share in client.shares.values():
                ranking.add(share, len(share.places))
        return ranking
