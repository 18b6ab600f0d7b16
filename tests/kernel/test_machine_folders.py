"""The folders of plugins that a node of a lab has for itself: nothing reaches the machine's, and the rest of the machine is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.lab import machine_folders

pytestmark = pytest.mark.kernel
PLACES = {"/var/lib": "var-lib", "/run": "run"}
LOCK = "xtables.lock"


def seen(folder: str) -> dict[str, tuple[int, int] | str]:
    """Which file each name in a folder is, or where a link leads."""
    found: dict[str, tuple[int, int] | str] = {}
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        found[entry.name] = os.readlink(entry.path) if entry.is_symlink() else (status.st_dev, status.st_ino)
    return {name: file for name, file in found.items() if name not in ("cni", LOCK)}


def test_what_plugins_keep_is_below_the_place_and_not_on_the_machine(tmp_path: Path) -> None:
    assert machine_folders.OWN.keys() == PLACES.keys()
    before = {folder: seen(folder) for folder in PLACES}
    machine = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in PLACES}
    machine_folders.enter(str(tmp_path / "node1"))
    assert {folder: seen(folder) for folder in PLACES} == before
    for folder, name in PLACES.items():
        assert not os.path.exists(f"{folder}/cni")
        os.makedirs(f"{folder}/cni/networks")
        Path(folder, "cni/networks/10.9.0.2").write_text(tmp_path.name)
        assert (tmp_path / "node1" / name / "cni/networks/10.9.0.2").read_text() == tmp_path.name
        with pytest.raises(FileNotFoundError):
            os.stat("cni/networks/10.9.0.2", dir_fd=machine[folder])
    Path("/run", LOCK).write_text(tmp_path.name)
    assert (tmp_path / "node1/run" / LOCK).read_text() == tmp_path.name


def test_the_next_process_of_a_node_finds_them_and_another_node_does_not(tmp_path: Path) -> None:
    machine_folders.enter(str(tmp_path / "node1"))
    os.makedirs("/var/lib/cni")
    Path("/var/lib/cni/kept").touch()
    Path("/var/lib/other").mkdir()
    machine_folders.enter(str(tmp_path / "node2"))
    assert not os.path.exists("/var/lib/cni")
    machine_folders.enter(str(tmp_path / "node1"))
    assert os.path.exists("/var/lib/cni/kept")
    assert os.path.isdir("/var/lib/other")


def test_links_files_and_sockets_are_those_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tmp_path / "machine"
    (machine / "cni").mkdir(parents=True)
    (machine / "folder").mkdir()
    (machine / "file").write_text("a")
    (machine / "link").symlink_to("file")
    os.mkfifo(machine / "fifo")
    monkeypatch.setattr(machine_folders, "OWN", {str(machine): frozenset({"cni"}), str(tmp_path / "none"): frozenset()})
    before = seen(str(machine))
    for _ in range(2):
        machine_folders.enter(str(tmp_path / "place"))
        assert seen(str(machine)) == before
        assert (machine / "link").read_text() == "a"


def test_what_has_gone_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    machine = tmp_path / "machine"
    machine.mkdir()
    (machine / "file").write_text("a")
    (tmp_path / "place").mkdir()
    bind = machine_folders._bind

    def gone(entry: os.DirEntry[str], target: str) -> None:
        os.unlink(entry.path)
        bind(entry, target)

    monkeypatch.setattr(machine_folders, "_bind", gone)
    monkeypatch.setattr(machine_folders, "OWN", {str(machine): frozenset()})
    machine_folders.enter(str(tmp_path / "place"))
    assert (
        capfd.readouterr().err == f"{machine}/file is not seen by the agent and its plugins: mount: No such file or directory\n"
    )
