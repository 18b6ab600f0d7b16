"""The resolver by the configuration that counts. Sources are asked in this order:

hosts entries and rewrites, the cluster's own zones, names for special use, other servers. In front of all is the search path.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection

from podplane.dns import message as m
from podplane.dns.cluster import ClusterZone
from podplane.dns.config import Config
from podplane.dns.directory import Directory
from podplane.dns.hosts import Hosts
from podplane.dns.message import Answer, Name, Query
from podplane.dns.reverse import ReverseZones
from podplane.dns.rewrites import RewrittenNames
from podplane.dns.special_names import SpecialNames
from podplane.dns.zone import Zone
from podplane.nameserver.resolver import Client, Others, Resolver, Source
from podplane.nameserver.search import Searching
from podplane.nameserver.zones import Zones


class Sources:
    """A resolver that goes by another configuration when it is told to.

    `networks` are the CIDRs of pods and Services. `others` are asked for what is none of the server's own names; `searches` are the
    machine's search domains.
    """

    def __init__(
        self,
        domain: Name,
        directory: Directory,
        networks: Collection[str],
        others: Others | None = None,
        searches: Collection[Name] = (),
    ) -> None:
        self._domain, self._directory, self._others, self._searches = domain, directory, others, searches
        self._networks = tuple(map(ipaddress.ip_network, networks))
        self._resolver = self.resolver(Config())

    def use(self, resolver: Searching) -> None:
        """Go by this one from now on. Questions that are on their way go on as they began."""
        self._resolver = resolver

    def resolver(self, config: Config) -> Searching:
        """One that goes by this configuration. It may be made in any thread: thousands of hosts entries take their time."""
        zones = self._zones(config)
        sources: list[Source] = [Zones(zones), *((self._others,) if self._others else ())]
        ends = frozenset(m.written(end) for zone in zones for end in zone.ends)
        resolver = Resolver(sources, config.zones.keys(), self._others, ends)
        return Searching(resolver, self._domain, self._directory.services, config.ttl, config.search_path)

    def answer(self, query: Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""
        return self._resolver.answer(query, client)

    def pass_on(self, query: Query, client: Client, told: Callable[[Answer], object]) -> bool:
        """Tell the answer of other servers to a query that is plainly for them, perhaps at once. False for any other."""
        return self._resolver.resolver.pass_on(query, client, told)

    def _zones(self, config: Config) -> list[Zone]:
        return [
            Hosts(config.hosts, config.ttl),
            RewrittenNames(config.rewrites, config.ttl),
            ClusterZone(self._domain, self._directory, config.ttl, config.pods),
            ReverseZones(self._domain, self._directory, self._networks, config.ttl),
            SpecialNames(config.ttl, config.zones, self._searches),
        ]
