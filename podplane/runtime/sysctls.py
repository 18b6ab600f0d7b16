"""Sysctls of pods: those that containers expect, and those that a pod's spec asks for. Pure."""

from __future__ import annotations

from podplane.kernel.ids import Ids
from podplane.model.pod import Pod
from podplane.runtime.environment import ConfigError

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""Those that a kubelet allows unless it was told of more ("Using sysctls in a Kubernetes Cluster")."""
PINGS = "net.ipv4.ping_group_range"
"""Its value are the groups that may send echo requests, as who writes it knows them."""
USUAL = {"net.ipv4.ip_unprivileged_port_start": "0", PINGS: "0 2147483647"}
"""What containerd sets for pods with a network of their own: whoever a process is, it may ping and listen on any port."""


def of(pod: Pod, users: Ids) -> dict[str, str]:
    """Name → value as the lab writes it. ConfigError for one that a pod may not set."""
    wanted = {} if pod.spec.host_network else dict(USUAL)
    for one in pod.spec.security_context.sysctls:
        name = one.name.replace("/", ".")
        if name not in SAFE:
            raise ConfigError(f'forbidden sysctl: "{one.name}" not allowlisted')
        if pod.spec.host_network and name.startswith("net."):
            raise ConfigError(f'forbidden sysctl: "{one.name}" not allowed with host net enabled')
        wanted[name] = one.value
    return wanted | ({PINGS: groups(wanted[PINGS], users)} if PINGS in wanted else {})


def groups(value: str, users: Ids) -> str:
    """A range of the pod's groups as the lab has them; what is no range stays, for the kernel to refuse."""
    try:
        first, last = map(int, value.split())
    except ValueError:
        return value
    if first > last or first not in users:
        return value
    return f"{users.first + first} {users.first + min(last, users.size - 1)}"
