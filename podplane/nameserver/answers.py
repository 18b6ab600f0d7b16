"""From a question's bytes to a response's: responses that are kept, who may ask, and the resolver for all else.

A response from the cluster's objects is kept by the bytes of its question, without the id, until one of the objects that it depends on
changes. So most questions are answered by one lookup.
"""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Awaitable, Sequence

from podplane.dns import message as m
from podplane.dns import relay
from podplane.dns.message import Answer, Query
from podplane.nameserver.resolver import Client, Resolving

KEPT = 50_000
"""Responses that are kept, at most."""


class Answers:
    """Answers questions; its methods run on one event loop. `networks` are CIDRs whose clients are answered."""

    def __init__(self, resolver: Resolving, networks: Sequence[str]) -> None:
        self._resolver = resolver
        self._networks = [ipaddress.ip_network(cidr) for cidr in networks]
        self._clients: dict[str, Client | None] = {}
        self._kept: dict[tuple[bool, bytes], bytes] = {}
        self._by_key: dict[str, list[tuple[bool, bytes]]] = {}

    def respond(self, data: bytes, ip: str, *, tcp: bool = False) -> bytes | Awaitable[bytes | None] | None:
        """The response to a message; an awaitable when others must be asked first, None when it gets none."""
        client = self.client(ip)
        if client is None:
            return m.refusal(data, m.REFUSED)
        kept = self._kept.get((tcp, data[2:]))
        if kept is not None:
            return data[:2] + kept
        try:
            query = m.read_query(data)
        except m.Malformed as error:
            return None if error.rcode is None else m.refusal(data, error.rcode)
        if (refused := _unsupported(query)) is not None:
            return m.respond(query, refused, limit_of(query, tcp=tcp))
        found = self._resolver.answer(query, client)
        if inspect.isawaitable(found):
            return self._later(query, found, tcp=tcp)
        response = relay.rendered(query, found, limit_of(query, tcp=tcp))
        if found.depends:
            self._keep((tcp, data[2:]), response[2:], found.depends)
        return response

    @staticmethod
    async def _later(query: Query, found: Awaitable[Answer], *, tcp: bool) -> bytes:
        return relay.rendered(query, await found, limit_of(query, tcp=tcp))

    def _keep(self, key: tuple[bool, bytes], response: bytes, depends: Sequence[str]) -> None:
        if len(self._kept) >= KEPT:
            self._kept.clear()
            self._by_key.clear()
        self._kept[key] = response
        for one in depends:
            self._by_key.setdefault(one, []).append(key)

    def changed(self, key: str) -> None:
        """An object changed: what was made of it is not kept any more."""
        for one in self._by_key.pop(key, ()):
            self._kept.pop(one, None)

    def forget(self) -> None:
        """Nothing is kept of what was answered until now."""
        self._kept.clear()
        self._by_key.clear()

    def client(self, ip: str) -> Client | None:
        """Who asks from this address; None for somebody outside of the cluster."""
        if ip not in self._clients:
            address = ipaddress.ip_address(ip.partition("%")[0])
            is_inside = address.is_loopback or any(address in network for network in self._networks)
            if len(self._clients) >= KEPT:
                self._clients.clear()
            self._clients[ip] = Client(ip) if is_inside else None
        return self._clients[ip]


def _unsupported(query: Query) -> Answer | None:
    """The answer to what this server does not do; None for a question that it may answer."""
    if query.opcode:
        return Answer(m.NOTIMP, authoritative=False)
    if query.edns is not None and query.edns.version:
        return Answer(m.BADVERS, authoritative=False)
    return None


def limit_of(query: Query, *, tcp: bool) -> int:
    """The longest response that the client takes."""
    if tcp:
        return m.TCP_BYTES
    return min(max(query.edns.size, m.PLAIN_BYTES), m.EDNS_BYTES) if query.edns else m.PLAIN_BYTES
