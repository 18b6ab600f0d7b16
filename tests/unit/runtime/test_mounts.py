"""Where a container sees the volumes of its pod, and on which file systems they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from podplane.kernel.rootfs import Bind
from podplane.kernel.volumes import Tmpfs
from podplane.model.pod import Container, Pod
from podplane.runtime import limits
from podplane.runtime.environment import ConfigError
from podplane.runtime.mounts import PodFolder

VOLUMES = [
    {"name": "scratch", "emptyDir": {}},
    {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    {"name": "files", "configMap": {"name": "c"}},
    {"name": "host", "hostPath": {"path": "/etc"}},
]


def pod(*volumes: dict[str, Any]) -> Pod:
    return msgspec.convert({"spec": {"volumes": volumes}}, Pod)


def folder(path: str = "/lab/pods/uid") -> PodFolder:
    return PodFolder(Path(path), cast(Any, None))


def bound(name: str, **mount: Any) -> Bind:
    """What is mounted of a volume."""
    container = msgspec.convert({"name": "main", "volumeMounts": [{"name": name, "mountPath": "/seen", **mount}]}, Container)
    (bind,) = folder().binds(pod(*VOLUMES), container, {"POD": "web-1"})
    return bind


def test_volumes_of_the_lab_are_read_only_and_others_are_not() -> None:
    assert bound("files") == Bind("/lab/pods/uid/volumes/files", "/seen", read_only=True)
    assert bound("scratch") == Bind("/lab/pods/uid/empty/scratch", "/seen", makes_below=True)
    assert bound("scratch", readOnly=True).read_only
    assert bound("host") == Bind("/etc", "/seen", inside=True)


def test_a_part_of_a_volume_is_found_when_it_is_mounted() -> None:
    assert bound("files", subPath="key") == Bind("/lab/pods/uid/volumes/files", "/seen", read_only=True, below="key")
    assert bound("scratch", subPathExpr="$(POD)/x").below == "web-1/x"
    assert bound("host", subPath="hosts") == Bind("/etc/hosts", "/seen", inside=True), "which the container sees anyhow"


@pytest.mark.parametrize("below", ["..", "a/../b", "/etc"])
@pytest.mark.parametrize("name", ["scratch", "files", "host"])
def test_a_part_has_no_dots_and_no_slash_before_it(name: str, below: str) -> None:
    with pytest.raises(ConfigError, match="must be relative"):
        bound(name, subPath=below)


def test_empty_dirs_have_sizes() -> None:
    place = "/lab/pods/uid/empty"
    assert folder().tmpfs(pod(*VOLUMES)) == [Tmpfs(place, limits.USUAL, ["scratch"]), Tmpfs(f"{place}/cache", 64 << 20)]
    assert folder().tmpfs(pod(VOLUMES[1])) == [Tmpfs(f"{place}/cache", 64 << 20)]
    assert folder().tmpfs(pod(VOLUMES[2])) == []
    assert folder().tmpfs(pod({"name": "a", "emptyDir": {"sizeLimit": 0}})) == [Tmpfs(place, limits.USUAL, ["a"])]
