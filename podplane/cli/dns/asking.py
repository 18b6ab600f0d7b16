"""Who looks for a name: a pod, by its spec, or a node; and what its resolver goes by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from podplane.cli.tables import has_ended, internal_ips, pod_ips, pod_state
from podplane.dns import resolv_conf
from podplane.dns.resolv_conf import NodeDns, ResolvConf
from podplane.kubeapi.errors import NotFound
from podplane.lab.errors import LabError
from podplane.model.pod import Pod
from podplane.runtime import network_files

Object = dict[str, Any]
DNS_SERVICE = ("kube-system", "kube-dns")
DEFAULT_NOTE = (
    "its dnsPolicy is Default: it asks the servers of its node, which in a lab are the cluster's DNS, too, but without the "
    "cluster's search domains"
)
HOST_NETWORK_NOTE = (
    "it is in its node's network, and its dnsPolicy ClusterFirst means Default there: no search domains of the cluster "
    "(ClusterFirstWithHostNet has them)"
)


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, from which address, on which node of a cluster with this domain; `hosts` is its /etc/hosts,
    `notes` are sentences for the user. `asks_cluster`: is the cluster's DNS among its servers?"""

    who: str
    node: str
    ip: str
    conf: ResolvConf
    domain: str
    policy: str = ""
    pod: str = ""
    hosts: str = ""
    notes: list[str] = field(default_factory=list)
    asks_cluster: bool = True

    def document(self) -> Object:
        """For programs."""
        return {
            "pod": self.pod,
            "node": self.node,
            "address": self.ip,
            "dnsPolicy": self.policy,
            "nameservers": list(self.conf.nameservers),
            "searches": list(self.conf.searches),
            "ndots": self.conf.ndots,
            "notes": self.notes,
        }


def of_node(client: Any, name: str, dns: NodeDns) -> Asking:
    """A node, the first one for "". LabError when there is none."""
    nodes = {node["metadata"]["name"]: node for node in client.objects("nodes")}
    chosen = name or min(nodes, key=lambda one: (len(one), one), default="")
    if chosen not in nodes:
        raise LabError(f"there is no node {name!r}: this lab has {', '.join(sorted(nodes)) or 'none'}")
    conf = ResolvConf(dns.servers)
    return Asking(f"node {chosen}", chosen, _same_family(internal_ips(nodes[chosen]), conf), conf, dns.domain)


def of_pod(client: Any, namespace: str, name: str, dns: NodeDns) -> Asking:
    """A pod. NotFound when there is none; LabError when nothing can be said of what it is answered."""
    found = client.get("pods", namespace, name)
    path, pod = f"{namespace}/{name}", msgspec.convert(found, Pod)
    if has_ended(found):
        raise LabError(f"pod {path} has ended ({pod_state(found)}): it asks for nothing any more")
    nodes = {node["metadata"]["name"]: node for node in client.objects("nodes")}
    node = pod.spec.node_name
    if node and node not in nodes:
        raise LabError(
            f"pod {path} runs on {node!r}, which is no node of the cluster: the cluster's DNS can't be reached from there"
        )
    spec = pod.spec
    conf = dns.of_pod(namespace, spec.dns_policy, spec.dns_config, on_host=spec.host_network)
    taken = resolv_conf.within_limits(conf)
    notes = [*_notes(pod, taken, dns.servers), *resolv_conf.omitted(conf)]
    ip = _same_family(pod_ips(found), taken)
    if not ip:
        node = node or min(nodes, key=lambda one: (len(one), one), default="")
        if not node:
            raise LabError("this lab has no nodes: nobody answers for names")
        ip = _same_family(internal_ips(nodes[node]), taken)
        notes.insert(0, f"it has no address yet ({pod_state(found)}): this is what {node} itself is answered")
    hosts = _hosts(pod, pod_ips(found), dns.domain)
    asks_cluster = not set(dns.servers).isdisjoint(taken.nameservers)
    return Asking(f"pod {path}", node, ip, taken, dns.domain, pod.spec.dns_policy, path, hosts, notes, asks_cluster)


def servers(client: Any) -> tuple[str, ...]:
    """The addresses of the cluster's DNS. LabError when there are none."""
    try:
        return tuple(client.get("services", *DNS_SERVICE)["spec"].get("clusterIPs", ()))
    except NotFound:
        missing = "there is no Service kube-system/kube-dns, by whose address pods ask"
        raise LabError(f"{missing}: it comes back when the lab is stopped and started again") from None


def _same_family(ips: Sequence[str], conf: ResolvConf) -> str:
    """The address by which the first server is asked."""
    for server in conf.nameservers:
        if found := next((ip for ip in ips if (":" in ip) == (":" in server)), ""):
            return found
    return ips[0] if ips else ""


def _notes(pod: Pod, conf: ResolvConf, dns: Sequence[str]) -> list[str]:
    """What a user may not expect of the pod's settings."""
    notes, spec = [], pod.spec
    if spec.dns_policy == "Default":
        notes.append(DEFAULT_NOTE)
    elif spec.dns_policy == "ClusterFirst" and spec.host_network:
        notes.append(HOST_NETWORK_NOTE)
    notes += _of_servers(conf, dns)
    return notes


def _of_servers(conf: ResolvConf, dns: Sequence[str]) -> Iterator[str]:
    others = [ip for ip in conf.nameservers if ip not in dns]
    if conf.nameservers and len(others) == len(conf.nameservers):
        yield (f"it does not ask the cluster's DNS, but {', '.join(others)}: what that answers is not known here")
    elif others and conf.nameservers[0] in others:
        yield (f"it asks {others[0]} first, and the cluster's DNS only when that does not answer")
    elif others:
        yield (f"it asks {', '.join(others)} when the cluster's DNS does not answer")
    elif not conf.nameservers:
        yield ("it has no name server at all")


def _hosts(pod: Pod, ips: Sequence[str], domain: str) -> str:
    """The pod's /etc/hosts."""
    if not pod.spec.host_network:
        return network_files.hosts(pod, ips, network_files.hostname(pod), domain)
    try:
        machine = Path("/etc/hosts").read_text(errors="replace")
    except OSError:
        machine = ""
    return network_files.hosts_of_node(pod, machine)
