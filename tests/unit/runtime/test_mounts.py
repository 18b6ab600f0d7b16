"""Where a container sees the volumes of its pod: a subPath stays in its volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from podplane.model.pod import Container, Pod
from podplane.runtime import volumes
from podplane.runtime.environment import ConfigError
from podplane.runtime.mounts import PodFolder
from podplane.runtime.volumes import File

VOLUMES = [
    {"name": "scratch", "emptyDir": {}},
    {"name": "files", "configMap": {"name": "c"}},
    {"name": "host", "hostPath": {"path": "/"}},
]


@pytest.fixture
def folder(tmp_path: Path) -> PodFolder:
    """A pod's folder, with a volume in which a container made links, and a ConfigMap's."""
    scratch = tmp_path / "pod" / "volumes" / "scratch"
    (scratch / "own").mkdir(parents=True)
    (scratch / "file").write_text("own")
    volumes.write(scratch.parent / "files", {"key": File(b"value")})
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "secret").write_text("secret")
    for name, to in {
        "in": "own",
        "abs": str(tmp_path / "machine"),
        "rel": "../../../machine",
        "up": "..",
        "round": "round",
    }.items():
        (scratch / name).symlink_to(to)
    return PodFolder(tmp_path / "pod", cast(Any, None))


def bound(folder: PodFolder, volume: str, below: str) -> tuple[str, bool]:
    """What is mounted of a volume, as a path in the pod's folder, and whether it is pinned."""
    mount = {"name": volume, "mountPath": "/seen", "subPath": below}
    pod = msgspec.convert({"spec": {"volumes": VOLUMES}}, Pod)
    (bind,) = folder.binds(pod, msgspec.convert({"name": "main", "volumeMounts": [mount]}, Container), {})
    return bind.source.removeprefix(f"{folder.path}/volumes/"), bind.pinned


@pytest.mark.parametrize(
    ("volume", "below", "source"),
    [
        ("scratch", "new/er", "scratch/new/er"),
        ("scratch", "in/er", "scratch/own/er"),
        ("scratch", "file", "scratch/file"),
        ("files", "key", "files/..1/key"),
        ("files", "none", "files/none"),
    ],
)
def test_a_sub_path_in_its_volume(folder: PodFolder, volume: str, below: str, source: str) -> None:
    assert bound(folder, volume, below) == (source, True)
    assert (folder.path / "volumes" / source).exists() is (below != "none")


@pytest.mark.parametrize("below", ["abs", "abs/secret", "rel", "rel/secret", "rel/made", "abs/made/er", "up", "up/files/key"])
def test_a_sub_path_that_leads_out_of_its_volume(folder: PodFolder, below: str) -> None:
    with pytest.raises(ConfigError, match="leads out of its volume"):
        bound(folder, "scratch", below)
    assert [entry.name for entry in (folder.path.parent / "machine").iterdir()] == ["secret"]


@pytest.mark.parametrize("below", ["file/er", "round", "round/er"])
def test_a_sub_path_that_cannot_be(folder: PodFolder, below: str) -> None:
    with pytest.raises(ConfigError, match=f"subPath '{below}': "):
        bound(folder, "scratch", below)


def test_a_sub_path_of_the_machine_is_looked_up_in_the_container(folder: PodFolder) -> None:
    assert bound(folder, "host", "etc/hosts") == ("/etc/hosts", False)
