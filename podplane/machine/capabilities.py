"""What the agent's process must be allowed to do (capabilities(7)), and what it does without.

CAP_NET_ADMIN   links, addresses, routes, nf_tables, connection tracking, sysctls of the network
CAP_NET_RAW     announcements of addresses (packet sockets), probes of connections (raw sockets)
CAP_NET_BIND_SERVICE   port 53, where the agent has the node's name server (`machine.own_name_server`)
CAP_SYS_ADMIN   entering pods' network namespaces: not needed where the plugin opens what is needed there (`cni.wire`)
"""

from __future__ import annotations

from podplane.kernel import rights
from podplane.kernel.sysctl import problem_of, use_folder
from podplane.machine.errors import MachineError

NEEDED = ("NET_ADMIN", "NET_RAW")
OF_NAME_SERVER = ("NET_BIND_SERVICE",)


def prepare(sysctl_dir: str) -> None:
    """Have this process set sysctls of the network at `sysctl_dir`. MachineError when it can't do what an agent has to do."""
    if missing := [f"CAP_{name}" for name in NEEDED if name not in rights.effective()]:
        raise MachineError(
            f"the agent has no {' and no '.join(missing)}: give it that, by CapabilityBoundingSet= of its unit or capabilities.add of its "
            "container"
        )
    if problem := problem_of(sysctl_dir):
        raise MachineError(
            f"{sysctl_dir} {problem}, and the agent sets sysctls of the network: mount the machine's /proc/sys/net where it can be "
            "written, and say where in `sysctl_dir` of the configuration"
        )
    use_folder(sysctl_dir)
