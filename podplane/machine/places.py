"""What a machine has beside its network that podplane might leave behind: files where engines look, mounts, sockets, zones of connection
tracking. In words, for `machine.snapshot`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from podplane.cni.install import is_ours
from podplane.cni.networks import SAVED
from podplane.kernel.conntrack import zones
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import Namespace
from podplane.kernel.sysctl import read_here
from podplane.machine.controllers_configuration import HEALTH_PORT
from podplane.model.config import AGENT_PORT, BESIDE_PORT

MOUNTS = Path("/proc/self/mountinfo")
OWN = (("tcp", AGENT_PORT), ("tcp", BESIDE_PORT), ("tcp", HEALTH_PORT))
"""At one of these an agent says that it begins; controllers may be on a node before its agent."""
NAMESPACES = ("/run/netns", "/var/run/netns")
"""Where engines mount the network namespaces of pods."""
EPHEMERAL = "net.ipv4.ip_local_port_range"
FIRST_EPHEMERAL = 32768


def files(folders: Iterable[str]) -> Iterator[str]:
    """What is in these folders, but for podplane's own: name, size, and when it was written."""
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):
            for path in sorted(Path(folder).iterdir()):
                if path.is_file() and not is_ours(path):
                    found = path.stat()  # what was moved aside will be back (`cni.networks.put_back`)
                    mode = f"{found.st_mode & 0o7777:o}"
                    yield f"file {str(path).removesuffix(SAVED)} ({found.st_size} bytes, mode {mode}, {found.st_mtime_ns})"


def mounts(folders: Iterable[str], table: Path = MOUNTS) -> Iterator[str]:
    """What is mounted below these folders, as this process sees it, and on them (proc_pid_mountinfo(5))."""
    wanted = (*dict.fromkeys(folders), *NAMESPACES)
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            before, _, after = line.partition(" - ")
            point = before.split()[4]
            if any(point.startswith(f"{one}/") for one in wanted):
                yield f"mount {point} ({after.split()[0]})"


def sockets(namespace: Namespace, kernel: Kernel) -> Iterator[str]:
    """Those that wait for clients, at ports that nobody gets by chance; without that by which an agent that begins says so."""
    low = namespace.run(read_here, [EPHEMERAL]).get(EPHEMERAL, "").split()
    first = int(low[0]) if low else FIRST_EPHEMERAL
    for protocol, port, ip in kernel.listening():
        if port < first and (protocol, port) not in OWN:
            yield f"socket {protocol} {ip} port {port}"


def tracked(namespace: Namespace) -> Iterator[str]:
    """The zones that tracked connections are in, beside the one that all are in."""
    with contextlib.suppress(OSError):
        yield from (f"zone {one} of connection tracking" for one in zones(namespace))
