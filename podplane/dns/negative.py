"""Answers without records from zones that have nothing but a name: each has a SOA record, so that resolvers keep it (RFC 2308)."""

from __future__ import annotations

from podplane.dns import message as m
from podplane.dns.message import Answer, Name, Record

CONFIG = ("config",)
"""What answers depend on that are made of the configuration alone."""


def negative(zone: Name, ttl: int, source: str, rcode: int = m.NOERROR) -> Answer:
    """NODATA, or NXDOMAIN, of a zone that this server made up. Its server and contact are nobody (RFC 6303, section 3)."""
    soa = Record(zone, m.SOA, ttl, m.soa(zone, (b"nobody", b"invalid"), 1, 3600, 1200, 604800, ttl))
    return Answer(rcode, authority=(soa,), source=source, depends=CONFIG)
