"""The text that a lab begins with says what is so."""

from __future__ import annotations

import re

from podplane.dns.config import Cache, Config, Upstream, domain_name
from podplane.dns.config_text import _table, decode
from podplane.dns.default_config import text
from podplane.dns.message import name_of

DOMAIN = name_of("cluster.local")
ZONES = {"example.test": ["203.0.113.10", "2001:db8:ffff::10"]}


def test_it_is_the_defaults_and_the_zones() -> None:
    servers = (Upstream("203.0.113.10"), Upstream("2001:db8:ffff::10"))
    assert decode(text(ZONES), DOMAIN) == Config(zones={domain_name("example.test"): servers})
    assert decode(text({}), DOMAIN) == Config()


def test_its_comments_name_every_key_and_its_default() -> None:
    """Comments that are values of keys are so when they count."""
    lines = re.sub(r"(?m)^# ((?:[a-zA-Z]+:|  ).*)$", r"\1", text({}))
    config, default = decode(lines, DOMAIN), Config()
    assert {line.partition(":")[0] for line in lines.splitlines() if re.match(r"[a-zA-Z]+:", line)} == set(_table(DOMAIN, ()))
    assert (config.pods, config.ttl, config.search_path) == (default.pods, default.ttl, default.search_path)
    assert (config.upstreams, config.order, config.cache) == (default.upstreams, default.order, Cache())
    assert config.zones and config.hosts and config.rewrites and config.log.pods and config.log.names
