"""What the nodes of a lab know of names."""

from __future__ import annotations

from pathlib import Path

import msgspec

from podplane.dns import resolv_conf
from podplane.dns.resolv_conf import NodeDns, ResolvConf


def node_dns(servers: tuple[str, ...], domain: str) -> NodeDns:
    """What the lab's nodes know of names; `servers` are addresses of one name server: the cluster IPs of the cluster's DNS.

    Their resolv.conf is this machine's, but with the lab's server: those of the machine are out of a lab's reach. It has one address, as
    kubeadm has it: both families lead to the same server, and musl asks all servers of a resolv.conf at once.
    """
    try:
        machine = resolv_conf.read(Path("/etc/resolv.conf").read_text(errors="replace"))
    except OSError:
        machine = ResolvConf()
    return NodeDns(servers[:1], domain, msgspec.structs.replace(machine, nameservers=servers[:1]))
