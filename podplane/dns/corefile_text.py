"""The ConfigMap of an imported configuration, as text that kubectl takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from podplane.dns.config import KEY, NAME, NAMESPACE

ORDER = ("pods", "ttl", "upstreams", "order", "zones", "hosts", "rewrites", "cache", "log")
INDENT = "    "


class _Dumper(yaml.SafeDumper):
    """Without aliases, which a configuration may not have."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def config_map(config: Mapping[str, Any]) -> str:
    """The ConfigMap, in YAML."""
    known = {key: config[key] for key in ORDER if key in config}
    style = None if any(isinstance(value, list | dict) for value in known.values()) else False  # one line for what is in a key
    text = (
        yaml.dump(known, Dumper=_Dumper, sort_keys=False, default_flow_style=style, width=1000) if known else "# all defaults\n"
    )
    lines = "".join(f"{INDENT}{line}\n" for line in text.splitlines())
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {NAME}\n  namespace: {NAMESPACE}\ndata:\n  {KEY}: |\n"
    return head + lines
