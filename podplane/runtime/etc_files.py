"""The files in /etc that a kubelet makes for each pod."""

from __future__ import annotations

from collections.abc import Sequence

from podplane.dns import resolv_conf
from podplane.dns.resolv_conf import ResolvConf
from podplane.model.pod import Pod
from podplane.runtime import network_files
from podplane.runtime.mounts import machine_hosts
from podplane.runtime.node import Node


def of_pod(pod: Pod, ips: Sequence[str], hostname: str, node: Node) -> dict[str, str]:
    """Their texts by name; `hostname` is what gethostname(2) says in the pod."""
    if pod.spec.host_network:
        hosts = network_files.hosts_of_node(pod, machine_hosts())
    else:
        hosts = network_files.hosts(pod, ips, network_files.hostname(pod), node.dns.domain)
    return {
        "resolv.conf": resolv_conf.within_limits(names_of(pod, node)).text(),
        "hosts": hosts,
        "hostname": f"{hostname}\n",
    }


def names_of(pod: Pod, node: Node) -> ResolvConf:
    """Its /etc/resolv.conf as its spec has it, before it is cut to what resolvers take (`resolv_conf.within_limits`)."""
    spec = pod.spec
    return node.dns.of_pod(pod.metadata.namespace, spec.dns_policy, spec.dns_config, on_host=spec.host_network)
