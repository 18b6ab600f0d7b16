"""What a path in a volume leads to: something in there, or nothing; and the options of file systems."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel.volumes import VolumeError, beneath, tmpfs_options

AT_FDCWD, RENAME_EXCHANGE = -100, 2
NAMES = ("own", "in", "abs", "rel", "up", "round", "file", "new", "..", ".", "", "gone")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume in which a container made links, beside what is none of its business."""
    place = tmp_path_factory.mktemp("pod")
    (place / "machine").mkdir()
    (place / "machine" / "secret").write_text("secret")
    folder = place / "volume"
    (folder / "own").mkdir(parents=True)
    (folder / "file").write_text("own")
    links = {"in": "own", "abs": str(place / "machine"), "rel": "../machine", "up": "..", "round": "round", "gone": "none/x"}
    for name, to in links.items():
        (folder / name).symlink_to(to)
    folder.chmod(0o777)
    return folder


def led_to(volume: Path, path: str, *, make: bool = False) -> str:
    """Where a path leads, seen from the volume's parent."""
    fd = beneath(str(volume), path, make=make)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{volume.parent}/")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "found"), [("own", "own"), ("in", "own"), ("in/made/er", "own/made/er"), ("file", "file"), ("own/../file", "file")]
)
def test_a_path_that_stays_in_the_volume(volume: Path, path: str, found: str) -> None:
    assert led_to(volume, path, make=True) == f"volume/{found}"


def test_folders_that_are_made_have_the_mode_of_the_volume(volume: Path) -> None:
    os.close(beneath(str(volume), "own/a/b", make=True))
    assert {(volume / path).stat().st_mode & 0o7777 for path in ("own/a", "own/a/b")} == {0o777}


@pytest.mark.parametrize(
    "path", ["abs", "abs/secret", "rel", "rel/secret", "rel/made", "abs/made/er", "up", "up/machine", "..", "/etc"]
)
def test_a_path_that_leads_out(volume: Path, path: str) -> None:
    with pytest.raises(VolumeError, match="leads out of its volume"):
        beneath(str(volume), path, make=True)
    assert os.listdir(volume.parent / "machine") == ["secret"]


@pytest.mark.parametrize("path", ["file/er", "round", "round/er", "none", "gone", "a" * 300, "a/" * 3000, "own\0x"])
def test_a_path_that_leads_nowhere(volume: Path, path: str) -> None:
    with pytest.raises(VolumeError, match="subPath "):
        beneath(str(volume), path)


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=8).map("/".join), st.booleans())
def test_no_path_leads_out(volume: Path, path: str, make: bool) -> None:
    try:
        found = led_to(volume, path, make=make)
    except VolumeError:
        found = "volume"
    assert found == "volume" or found.startswith("volume/")
    assert os.listdir(volume.parent / "machine") == ["secret"]


def test_a_path_that_changes_meanwhile_does_not_lead_out(tmp_path: Path) -> None:
    """A container that exchanges a folder and a link as fast as it can."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    for folder in (volume / "a" / "deep", outside / "deep"):
        folder.mkdir(parents=True)
    (volume / "link").symlink_to("../outside")
    ended = threading.Event()

    libc = ctypes.CDLL(None, use_errno=True)
    names = [str(volume / name).encode() for name in ("a", "link")]

    def exchange() -> None:
        while not ended.is_set():
            libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)

    racer = threading.Thread(target=exchange)
    racer.start()
    found = set()
    try:
        for number in range(20_000):
            try:
                found.add(led_to(volume, f"a/deep/{number % 7}" if number % 2 else "a/deep", make=True).split("/")[0])
            except VolumeError:
                found.add("refused")
            if number > 500 and len(found) > 1:
                break
    finally:
        ended.set()
        racer.join()
    assert found == {"volume", "refused"}
    assert os.listdir(outside / "deep") == []


def test_a_file_system_has_room_for_files_however_small_it_is() -> None:
    assert tmpfs_options(0, "755") == "mode=755"
    assert tmpfs_options(1 << 20, "777") == "mode=777,size=1048576,nr_inodes=256"
    assert tmpfs_options(1, "777") == "mode=777,size=1,nr_inodes=16"
