"""What the nodes of a lab know of names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from podplane.dns import resolv_conf
from podplane.dns.resolv_conf import NodeDns, ResolvConf


def node_dns(servers: tuple[str, ...], domain: str) -> NodeDns:
    """What the lab's nodes know of names. Their resolv.conf is this machine's, but with the lab's servers: those of the machine are out of
    a lab's reach."""
    try:
        machine = resolv_conf.read(Path("/etc/resolv.conf").read_text(errors="replace"))
    except OSError:
        machine = ResolvConf()
    return NodeDns(servers, domain, replace(machine, nameservers=servers))
