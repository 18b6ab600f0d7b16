"""Where a container sees the volumes of its pod, and on which file systems they lie."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from podplane.kernel.rootfs import Bind
from podplane.kernel.volumes import Tmpfs
from podplane.model.pod import Container, Pod
from podplane.runtime import limits, volumes
from podplane.runtime.environment import ConfigError, Facts
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


def named(count: int) -> Pod:
    """A pod with so many volumes of the same ConfigMap."""
    return pod(*({"name": f"v{number}", "configMap": {"name": "c"}} for number in range(count)))


def facts(data: dict[str, str]) -> Facts:
    return Facts((), (), {}, {("configmaps", "c"): {"data": data}})


@pytest.mark.parametrize(
    ("data", "fits"), [({"k": "x" * (1 << 20)}, 64), ({f"k{number}": "" for number in range(2000)}, 10)], ids=["bytes", "files"]
)
async def test_what_a_pod_names_again_and_again_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, str], fits: int
) -> None:
    written: list[str] = []
    monkeypatch.setattr(volumes, "write", lambda place, *_: written.append(place.name))
    await folder(str(tmp_path)).write(named(fits), facts(data), {})
    assert len(written) == fits
    with pytest.raises(ConfigError, match=r"volume 'v[0-9]+': a pod may have 20,000 files .* and 64Mi in them"):
        await folder(str(tmp_path)).write(named(fits + 1), facts(data), {})


async def test_many_files_are_written_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(volumes, "write", lambda *_: threads.append(threading.get_ident()))
    for count in (1, 100):
        await folder(str(tmp_path)).write(named(1), facts({f"k{number}": "" for number in range(count)}), {})
    assert threads[0] == threading.get_ident() != threads[1]
