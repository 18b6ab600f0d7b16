"""The folder's lock tells whether a lab runs, and settings are kept, merged and refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from podplane.lab import folder as module
from podplane.lab import operations, spec
from podplane.lab.errors import LabError
from podplane.lab.folder import Endpoint, Folder, labs
from podplane.lab.spec import LabSpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Folder.named("test")
    made.create()
    return made


def holder_process(folder: Folder) -> int:
    """A process that holds the lab's lock until it is killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            folder.hold()
            os.write(write, b"!")
            signal.pause()
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"!"
    os.close(read)
    return pid


def test_a_lab_knows_whether_others_still_find_what_it_holds(folder: Folder, tmp_path: Path) -> None:
    spec.save(folder.spec, LabSpec(name="test"))
    assert folder.is_held(), "a folder that is not held can't be lost"
    fd = folder.hold()
    assert folder.is_held()
    folder.path.rename(tmp_path / "elsewhere")
    assert not folder.is_held()
    folder.create()
    spec.save(folder.spec, LabSpec(name="test"))
    assert not folder.is_held(), "another one of its name is there now"
    os.close(fd)


def test_the_holder_is_known_until_it_ends(folder: Folder) -> None:
    spec.save(folder.spec, LabSpec(name="test"))
    assert folder.holder() is None
    pid = holder_process(folder)
    try:
        assert folder.holder() == pid
        with pytest.raises(LabError, match="runs already"):
            folder.hold()
        with pytest.raises(LabError, match="still starting"):
            folder.endpoint()
        folder.publish(Endpoint("127.0.0.1", 1234, "token", "ca"))
        assert folder.endpoint().port == 1234
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert folder.holder() is None
    with pytest.raises(LabError, match=r"is not running: start it with `podplane up --name test`"):
        folder.endpoint()


def test_forgetting_the_last_lab_leaves_no_folder(folder: Folder, tmp_path: Path) -> None:
    assert labs() == ["test"]
    folder.delete()
    assert list(tmp_path.iterdir()) == []
    assert labs() == []


def test_settings_are_as_given_else_as_they_were_else_the_defaults(folder: Folder) -> None:
    first = operations.settings(folder, {"nodes": 5})
    assert (first.nodes, first.cluster_cidr) == (5, LabSpec().cluster_cidr)
    spec.save(folder.spec, first)
    folder.store.write_bytes(b"")
    assert operations.settings(folder, {}) == first
    assert operations.settings(folder, {"nodes": 7}).nodes == 7
    with pytest.raises(LabError, match="can only get more"):
        operations.settings(folder, {"nodes": 4})
    with pytest.raises(LabError, match="was made with --cluster-cidr"):
        operations.settings(folder, {"cluster_cidr": "10.1.0.0/16"})


def test_settings_that_cannot_be_read_are_named(folder: Folder) -> None:
    folder.spec.write_text("{")
    with pytest.raises(LabError, match="remove the folder"):
        spec.load(folder.spec)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a" * 41, "../x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(LabError):
        Folder.named(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 0}, "a lab has 1 to"),
        ({"cluster_cidr": "10.96.0.0/12"}, "overlaps service CIDR"),
        ({"node_cidr": "203.0.113.0/24,fd00:1::/64"}, "overlaps network outside"),
        ({"cluster_cidr": "10.0.0.0/16,10.1.0.0/16"}, "one CIDR for each IP family"),
        ({"masquerade_exclude": "nonsense"}, "CIDR without masquerade"),
        ({"nodes": 300}, "have room for"),
    ],
)
def test_plans_that_do_not_fit(change: dict[str, object], message: str) -> None:
    import msgspec

    with pytest.raises(LabError, match=message):
        msgspec.structs.replace(LabSpec(), **change).check()


def test_folders_that_are_no_labs_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("one", "Two", ".cache", "b_c"):
        (tmp_path / "podplane" / name).mkdir(parents=True)
    assert labs() == ["one"]


def test_only_one_check_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = Folder.named("one")
    folder.create()
    with folder.checking(), pytest.raises(LabError, match="being checked already"), folder.checking():
        pass
    with folder.checking():
        pass


def test_a_command_that_waited_for_a_deleted_folder_has_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = Folder.named("one")
    with folder.exclusive(make=True):
        folder.delete()
        with folder.exclusive(make=True):
            assert folder.path.exists()
        folder.delete()
    with pytest.raises(LabError, match="was deleted just now"), folder.exclusive():
        pass


def test_a_command_that_holds_a_lab_for_long_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "EXCLUSIVE_SECONDS", 0.1)
    folder = Folder.named("one")
    with (
        folder.exclusive(make=True),
        pytest.raises(LabError, match=r"starting or stopping lab 'one' for 0.1 s"),
        folder.exclusive(),
    ):
        pass
    with folder.exclusive():
        pass


def test_who_holds_a_lock_is_in_proc(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        inode = os.fstat(file.fileno()).st_ino
        locks = tmp_path / "locks"
        locks.write_text(
            f"1: POSIX  ADVISORY  WRITE 12 fe:00:{inode} 0 EOF\n2: FLOCK  ADVISORY  WRITE 34 fe:00:{inode} 0 EOF\n"
        )
        assert module._holder_of(file.fileno(), locks) == " (process 34)"
        locks.write_text(f"1: FLOCK  ADVISORY  WRITE 34 fe:00:{inode}1 0 EOF\nodd\n")
        assert module._holder_of(file.fileno(), locks) == ""
        assert module._holder_of(file.fileno(), tmp_path / "missing") == ""
