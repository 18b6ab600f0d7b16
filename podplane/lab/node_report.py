"""What the kubelet of a node reports of its machine: labels, capacity, system information, images and features of the runtime.

All nodes of a lab are one machine, which they share; what identifies a machine differs from node to node all the same, because programs
tell nodes apart by it. Sources: kubelet, `initialNode` and the setters in nodestatus; cadvisor's MachineInfo; core/v1 NodeStatus.
"""

from __future__ import annotations

import functools
import os
import platform
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podplane import __version__
from podplane.apiserver import shapes
from podplane.apiserver.server import ARCHITECTURES
from podplane.model import quantity
from podplane.runtime.images import IMAGES

MAX_PODS = 110
ROOT = Path("/")
IMAGE_NAMES = 5
"""Names of one image that are reported (MaxNamesPerImageInNodeStatus)."""
RUNTIME_FEATURES = {"recursiveReadOnlyMounts": False, "userNamespaces": False}
"""Of the one runtime handler, the default, which has no name: `securityContext` is stored and not acted on."""


def architecture() -> str:
    """Of this machine, as Go and so Kubernetes name it."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def labels(name: str) -> dict[str, str]:
    """The labels that a kubelet gives its node, the old names of two of them too."""
    system = {"os": "linux", "arch": architecture()}
    return {
        "kubernetes.io/hostname": name,
        **{f"kubernetes.io/{key}": value for key, value in system.items()},
        **{f"beta.kubernetes.io/{key}": value for key, value in system.items()},
    }


def status(name: str, storage: Path) -> dict[str, Any]:
    """NodeStatus without addresses and conditions; `storage` is where the node keeps files of pods."""
    given = _capacity(storage)
    return {
        "nodeInfo": node_info(name),
        "capacity": given,
        "allocatable": allocatable(given),
        "images": images(),
        "runtimeHandlers": [{"name": "", "features": RUNTIME_FEATURES}],
        "features": {"supplementalGroupsPolicy": False},
    }


def capacity(storage: Path, root: Path = ROOT) -> dict[str, str]:
    """All of this machine: processors, memory, the file system of `storage`, huge pages of each size that the kernel has."""
    disk = os.statvfs(storage)
    return {
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": quantity.binary(disk.f_frsize * disk.f_blocks),
        **dict(_huge_pages(root)),
        "memory": quantity.binary(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "pods": str(MAX_PODS),
    }


_capacity = functools.lru_cache(1)(capacity)
"""Of all nodes of a lab it is the same, and it is read once."""


def allocatable(given: dict[str, str]) -> dict[str, str]:
    """What pods can have: nothing is kept for the system, but huge pages are taken out of the memory."""
    huge = sum(quantity.parse(value) for name, value in given.items() if name.startswith("hugepages-"))
    left = max(0, int(quantity.parse(given["memory"]) - huge))
    return given | {"memory": quantity.binary(left)}


def _huge_pages(root: Path) -> Iterator[tuple[str, str]]:
    for folder in sorted((root / "sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        yield f"hugepages-{quantity.binary(size)}", quantity.binary(size * int(_text(folder / "nr_hugepages") or 0))


def node_info(name: str, root: Path = ROOT) -> dict[str, Any]:
    """NodeSystemInfo. The identifiers are made of the machine's own and of the node's name, and stay over restarts."""
    machine, (boot, own, swap) = os.uname(), _of_boot(root)
    own = own or machine.nodename
    info: dict[str, Any] = {
        "machineID": uuid.uuid5(uuid.NAMESPACE_OID, f"{own}/{name}").hex,
        "systemUUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{own}/{name}")),
        "bootID": boot,
        "kernelVersion": machine.release,
        "osImage": _os_name(),
        "containerRuntimeVersion": f"podplane://{__version__}",
        "kubeletVersion": f"v{shapes.data()['kubernetes']}.0+podplane.{__version__}",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture(),
    }
    if swap:
        info["swap"] = {"capacity": swap}
    return info


@functools.lru_cache(1)
def _of_boot(root: Path) -> tuple[str, str, int]:
    """(id of the boot, id of the machine, swap space): what kubelets read once, too."""
    return _text(root / "proc/sys/kernel/random/boot_id"), _text(root / "etc/machine-id"), _swap(root)


def _swap(root: Path) -> int:
    """Bytes of swap space."""
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("SwapTotal:"):
            return int(line.split()[1]) * 1024
    return 0


@functools.cache
def images() -> list[dict[str, Any]]:
    """The built-in images, each once with all its names."""
    names: dict[int, list[str]] = {}
    for name, image in IMAGES.items():
        names.setdefault(id(image), []).append(name)
    return [{"names": known[:IMAGE_NAMES]} for known in names.values()]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@functools.cache
def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
