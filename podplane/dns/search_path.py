"""The search path of a pod's resolver: what it asks for after its first question, so that this can be answered with the end of it.

A resolver that looks for `example.com` with `ndots:5` asks for `example.com.default.svc.cluster.local` first, then with each other domain
of its list, and at last for the name itself (resolv.conf(5)): up to five questions in a row, each for A and AAAA. A server that knows
the list can go on itself where the first name does not exist. It answers with an alias from the first name to the one that was found;
nothing else would let the client take records of another name (RFC 1034, 3.6.2).

Whether a program looks for `example.com`, or for an absent `example.com.default.svc.cluster.local`, can't be told from the question.
So the path is not followed where the second is likely: for a name of one label more than the domain, or of a port of such a name
(`_http._tcp.web`), which are those of an absent Service, and for a name below a Service that exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from podplane.dns import message as m
from podplane.dns.message import Name
from podplane.dns.resolv_conf import ResolvConf, within_limits

SEARCHED = frozenset((m.A, m.AAAA, m.MX, m.TXT, m.SRV, 35, 64, 65))
"""Types that resolvers search for: these, and NAPTR, SVCB and HTTPS; not those that are about a name as it is, CNAME say."""
LEAST_LABELS = 2


@dataclass(frozen=True, slots=True)
class SearchPath:
    """The search domains of a resolver, and the number of dots from which on a name is not looked for in them first. Equal paths lead to
    equal answers."""

    domains: tuple[Name, ...] = ()
    ndots: int = 1

    def after(self, name: Name) -> tuple[Name, ...]:
        """What the resolver asks for after this name, if it is the first that it asks for; nothing if it can't be that."""
        if not self.domains or not self.domains[0] or not m.is_under(name, self.domains[0]):
            return ()
        base = name[: len(name) - len(self.domains[0])]
        if len(base) - 1 >= self.ndots or sum(label[:1] != b"_" for label in base) < LEAST_LABELS:
            return ()
        names = dict.fromkeys(base + domain for domain in (*self.domains[1:], ()))
        names.pop(name, None)
        return tuple(one for one in names if len(m.written(one)) <= m.MAX_NAME)


NOWHERE = SearchPath()
"""That of clients that nothing is known of."""


@lru_cache(maxsize=1024)
def of_conf(conf: ResolvConf) -> SearchPath:
    """The path of a resolv.conf. A domain that is no name is left out by libraries, too."""
    domains: list[Name] = []
    for text in within_limits(conf).searches:
        try:
            domains.append(m.name_of(text))
        except ValueError:
            continue
    return SearchPath(tuple(domains), conf.ndots)
