"""/etc/hosts and the host name of a pod, by its spec. Pure. (`dns.resolv_conf` has its /etc/resolv.conf.)

Source: kubelet's pkg/kubelet/kubelet_pods.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from podplane.model.pod import Pod

MAX_HOSTNAME, MAX_FULL = 63, 64
"""Characters of a host name, and of one with its domain, which is as long as Linux has it (HOST_NAME_MAX)."""


def hostname(pod: Pod) -> str:
    """The pod's host name: as its spec says, else its own name, cut where the kernel's names end."""
    wanted = pod.spec.hostname_override or pod.spec.hostname or pod.metadata.name
    return wanted if len(wanted) <= MAX_HOSTNAME else wanted[:MAX_HOSTNAME].rstrip("-.")


def domain(pod: Pod, cluster_domain: str) -> str:
    """The domain of a pod that has a subdomain and no name that overrides it (KEP-4762), else ""."""
    subdomain = "" if pod.spec.hostname_override else pod.spec.subdomain
    return f"{subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}" if subdomain else ""


def kernel_name(pod: Pod, cluster_domain: str) -> str:
    """What gethostname(2) says in the pod: its host name, with its domain when its spec says so."""
    name, own_domain = hostname(pod), domain(pod, cluster_domain)
    return f"{name}.{own_domain}" if pod.spec.set_hostname_as_fqdn and own_domain else name


def name_trouble(pod: Pod, cluster_domain: str) -> str:
    """Why no pod can have its name, or "": the kubelet starts none whose name is too long, either."""
    name = kernel_name(pod, cluster_domain)
    if pod.spec.host_network or len(name) <= MAX_FULL:
        return ""
    return f"its full name {name} has {len(name)} characters, and a host name has {MAX_FULL} at most (setHostnameAsFQDN)"


def hosts(pod: Pod, ips: Sequence[str], name: str, cluster_domain: str) -> str:
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
    own_domain = domain(pod, cluster_domain)
    own = f"{name}.{own_domain}\t{name}" if own_domain else name
    lines += [f"{ip}\t{own}" for ip in ips]
    return "\n".join([*lines, *_aliases(pod)]) + "\n"


def hosts_of_node(pod: Pod, machine: str) -> str:
    """/etc/hosts of a pod in the host's network: the node's own, `machine`, and what the pod's hostAliases say."""
    aliases = "".join(f"{line}\n" for line in _aliases(pod))
    return f"# Kubernetes-managed hosts file (host network).\n{machine}{aliases}"


def _aliases(pod: Pod) -> list[str]:
    aliases = [f"{alias.ip}\t" + "\t".join(alias.hostnames) for alias in pod.spec.host_aliases]
    return ["", "# Entries added by HostAliases.", *aliases] if aliases else []
