"""/etc/resolv.conf, /etc/hosts and the host name of a pod, by its spec. Pure.

Sources: kubelet's pkg/kubelet/network/dns and pkg/kubelet/kubelet_pods.go; resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from podplane.model.pod import Pod

CLUSTER_DOMAIN = "cluster.local"
MAX_NAMESERVERS, MAX_SEARCHES, MAX_SEARCH_CHARACTERS, MAX_HOSTNAME = 3, 32, 2048, 63
CLUSTER_OPTIONS = ("ndots:5",)


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """The file; what libraries would not read is left out."""
        lines = [f"nameserver {ip}" for ip in self.nameservers[:MAX_NAMESERVERS]]
        searches = list(self.searches[:MAX_SEARCHES])
        while len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
            searches.pop()
        if searches:
            lines.append("search " + " ".join(searches))
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "\n".join(lines) + "\n"


def read_resolver(text: str) -> Resolver:
    """What a resolv.conf says; the last `search` or `domain` counts."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", ip, *_]:
                nameservers.append(ip)
            case ["search" | "domain", *names]:
                searches = tuple(names)
            case ["options", *more]:
                options += more
    return Resolver(tuple(nameservers), searches, tuple(options))


def resolver(pod: Pod, cluster_dns: Sequence[str], machine: Resolver) -> Resolver:
    """The pod's resolver by its dnsPolicy and dnsConfig; `machine` is that of the node."""
    spec = pod.spec
    policy = spec.dns_policy
    if policy == "None":
        base = Resolver()
    elif policy == "Default" or (policy == "ClusterFirst" and spec.host_network):
        base = machine
    else:
        domains = (f"{pod.metadata.namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)
        base = Resolver(tuple(cluster_dns), (*domains, *machine.searches), CLUSTER_OPTIONS)
    config = spec.dns_config
    added = tuple(o.name if o.value is None else f"{o.name}:{o.value}" for o in config.options)
    named = {option.partition(":")[0] for option in added}
    kept = tuple(option for option in base.options if option.partition(":")[0] not in named)
    return Resolver(
        _unique((*base.nameservers, *config.nameservers)), _unique((*base.searches, *config.searches)), (*kept, *added)
    )


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def hostname(pod: Pod) -> str:
    """The pod's host name: as its spec says, else its own name, cut where the kernel's names end."""
    wanted = pod.spec.hostname_override or pod.spec.hostname or pod.metadata.name
    return wanted if len(wanted) <= MAX_HOSTNAME else wanted[:MAX_HOSTNAME].rstrip("-.")


def domain(pod: Pod) -> str:
    """The domain of a pod that has a subdomain and no name that overrides it (KEP-4762), else ""."""
    subdomain = "" if pod.spec.hostname_override else pod.spec.subdomain
    return f"{subdomain}.{pod.metadata.namespace}.svc.{CLUSTER_DOMAIN}" if subdomain else ""


def hosts(pod: Pod, ips: Sequence[str], name: str) -> str:
    """/etc/hosts: localhost, the pod itself, and what its hostAliases say; tests know by its first line who made it."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    own = f"{name}.{domain(pod)}\t{name}" if domain(pod) else name
    lines += [f"{ip}\t{own}" for ip in ips]
    return "\n".join([*lines, *_aliases(pod)]) + "\n"


def hosts_of_node(pod: Pod, machine: str) -> str:
    """/etc/hosts of a pod in the host's network: the node's own, `machine`, and what the pod's hostAliases say."""
    aliases = "".join(f"{line}\n" for line in _aliases(pod))
    return f"# Kubernetes-managed hosts file (host network).\n{machine}{aliases}"


def _aliases(pod: Pod) -> list[str]:
    aliases = [f"{alias.ip}\t" + "\t".join(alias.hostnames) for alias in pod.spec.host_aliases]
    return ["", "# Entries added by HostAliases.", *aliases] if aliases else []
