"""How much containers may have of the machine, and may write: all of that lies in memory, on file systems that have a size. Pure, but for
the size of memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from podplane.kernel.cgroups import MEMORY, Limits
from podplane.model import quantity
from podplane.model.pod import Container, Pod, Volume
from podplane.model.qos import qos_class
from podplane.runtime.environment import ConfigError

USUAL = MEMORY // 8
"""What a container may write outside of its volumes, and a pod in all its emptyDirs that say no size."""
MOST = MEMORY // 2
"""What it may write where its pod says how much."""
THE_LABS = 1 << 20
"""For mount points and what of /etc is the pod's: the smallest limit leaves room for these."""
STORAGE = "ephemeral-storage"
NO_GROUPS = "this lab may not use control groups for that (docs/security.md)"
HUGE = "HugePages"
"""How the media of emptyDirs begin that a lab doesn't have."""


def layer(container: Container) -> int:
    """Bytes that a container may write outside of its volumes, with those that the lab writes there itself."""
    asked = amount(container.resources.get("limits", {}).get(STORAGE))
    return (min(asked, MOST) or USUAL) + THE_LABS


def amount(text: str | int | None) -> int:
    """Whole units of a quantity, rounded up, 0 for none."""
    return math.ceil(quantity.parse(text)) if text else 0


def sized(pod: Pod) -> dict[str, int]:
    """Bytes of those emptyDirs that have a size of their own; together a pod's may not have more than `MOST`. The others share `USUAL`."""
    found: dict[str, int] = {}
    for volume in empty_dirs(pod):
        asked = _asked(volume)
        if 0 < asked <= MOST - sum(found.values()):
            found[volume.name] = asked
    return found


def empty_dirs(pod: Pod) -> Sequence[Volume]:
    """Its emptyDirs."""
    return [volume for volume in pod.spec.volumes if volume.empty_dir is not None]


def _asked(volume: Volume) -> int:
    return amount(volume.empty_dir.size_limit) if volume.empty_dir is not None else 0


MOST_LIKELY, LEAST_LIKELY = 1000, 2
"""`oom_score_adj` of a container that asks for no memory, and of one that asks for much (kubelet, qos/policy.go)."""


LEAST_MEMORY = 1 << 20
"""No container starts with less: before its program runs its process is podplane's, which takes more than that for itself."""


class TooLittle(ConfigError):
    """With so little no container can start."""

    reason = "CreateContainerError"


def check(container: Container, controllers: Collection[str]) -> None:
    """TooLittle for a limit with which it could not start, if it is applied: `controllers` are those of the lab's control groups."""
    limit = container.resources.get("limits", {}).get("memory")
    if "memory" in controllers and 0 < amount(limit) < LEAST_MEMORY:
        raise TooLittle(f"memory limit {limit} is too low: no container starts with less than {mebibytes(LEAST_MEMORY)}")


def share(container: Container, processes: int) -> Limits:
    """What a container may have of the machine, of which `processes` processes."""
    limited, asked = container.resources.get("limits", {}), container.resources.get("requests", {})
    return Limits(
        memory=amount(limited.get("memory")),
        cpu=thousandths(limited.get("cpu")),
        processes=processes,
        asked_cpu=thousandths(asked.get("cpu")),
    )


def thousandths(text: str | int | None) -> int:
    """Of a processor, rounded up."""
    return math.ceil(quantity.parse(text) * 1000) if text else 0


def oom_score(pod: Pod, container: Container) -> int:
    """How much rather than the lab and other programs of the machine it is killed when memory is short: pods go first."""
    kind = qos_class(one.resources for one in (*pod.spec.init_containers, *pod.spec.containers))
    if kind == "Guaranteed":
        return LEAST_LIKELY
    asked = amount(container.resources.get("requests", {}).get("memory"))
    return (
        MOST_LIKELY
        if kind == "BestEffort"
        else min(MOST_LIKELY - 1, max(LEAST_LIKELY, MOST_LIKELY - MOST_LIKELY * asked // MEMORY))
    )


def not_applied(pod: Pod, controllers: Collection[str]) -> Iterator[str]:
    """What it limits that has another bound, or none, a sentence each; `controllers` are those of the lab's control groups."""
    for container in pod.spec.all_containers:
        limited = container.resources.get("limits", {})
        if names := [name for name in ("cpu", "memory") if amount(limited.get(name)) and name not in controllers]:
            yield f"container {container.name}: its limits of {' and '.join(names)} are not applied: {NO_GROUPS}"
    own = sized(pod)
    for volume in empty_dirs(pod):
        if _asked(volume) and volume.name not in own:
            limit = volume.empty_dir.size_limit if volume.empty_dir is not None else ""
            yield (
                f"volume {volume.name}: sizeLimit {limit} is not applied: all of a pod's may be {mebibytes(MOST)}, half of the memory; "
                f"this one has {mebibytes(USUAL)} with those that say none"
            )
    for container in pod.spec.all_containers:
        limit = container.resources.get("limits", {}).get(STORAGE)
        if amount(limit) > MOST:
            yield f"container {container.name}: a limit of {STORAGE} of {limit} is not applied: it is {mebibytes(MOST)}, half of the memory"


def mebibytes(size: int) -> str:
    """As a quantity, in whole MiB."""
    return f"{size >> 20}Mi"
