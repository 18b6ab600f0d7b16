"""The resolver by the configuration that counts. Sources are asked in this order:

hosts entries and rewrites, the cluster's own zones, names for special use, other servers. In front of all is the search path.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Collection

from podplane.dns.cluster import ClusterZone
from podplane.dns.config import Config
from podplane.dns.directory import Directory
from podplane.dns.hosts import Hosts
from podplane.dns.message import Answer, Name, Query
from podplane.dns.reverse import ReverseZones
from podplane.dns.rewrites import RewrittenNames
from podplane.dns.special_names import SpecialNames
from podplane.dns.zone import Zone
from podplane.nameserver.resolver import Client, Resolver, Resolving, Source
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
        others: Collection[Source] = (),
        searches: Collection[Name] = (),
    ) -> None:
        self._domain, self._directory, self._others, self._searches = domain, directory, others, searches
        self._networks = tuple(map(ipaddress.ip_network, networks))
        self._resolver: Resolving = self.resolver(Config())

    def use(self, resolver: Resolving) -> None:
        """Go by this one from now on. Questions that are on their way go on as they began."""
        self._resolver = resolver

    def resolver(self, config: Config) -> Resolving:
        """One that goes by this configuration. It may be made in any thread: thousands of hosts entries take their time."""
        resolver = Resolver([Zones(self._zones(config)), *self._others], config.zones.keys())
        return Searching(resolver, self._domain, self._directory.services, config.ttl, config.search_path)

    def answer(self, query: Query, client: Client) -> Answer | Awaitable[Answer]:
        """The answer to a query."""
        return self._resolver.answer(query, client)

    def _zones(self, config: Config) -> list[Zone]:
        return [
            Hosts(config.hosts, config.ttl),
            RewrittenNames(config.rewrites, config.ttl),
            ClusterZone(self._domain, self._directory, config.ttl, config.pods),
            ReverseZones(self._domain, self._directory, self._networks, config.ttl),
            SpecialNames(config.ttl, config.zones, self._searches),
        ]
