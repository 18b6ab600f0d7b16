"""The virtual machine of tests: what it boots from, and what becomes of what it says. (`make test-vm` boots it.)"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.vm import __main__ as vm
from tools.vm import initramfs, kernel
from tools.vm.initramfs import FOLDER, PROGRAM, Entry
from tools.vm.kernel import Missing


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_an_archive_has_whole_fields_of_four_bytes(contents: list[bytes]) -> None:
    entries = [Entry(f"file{number}", PROGRAM, data) for number, data in enumerate(contents)]
    assert list(unpacked(initramfs.archive(entries))) == [(one.name, one.mode, one.data) for one in entries]


def unpacked(archive: bytes) -> list[tuple[str, int, bytes]]:
    found, at = [], 0
    while True:
        assert at % 4 == 0 and archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        begin = at + 110 + length + -(110 + length) % 4
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], archive[begin : begin + size]))
        at = begin + size + -size % 4


@pytest.mark.skipif(shutil.which("cpio") is None, reason="there is no cpio(1)")
def test_an_archive_is_what_others_read() -> None:
    data = initramfs.archive([Entry("a", FOLDER), Entry("a/b", PROGRAM, b"text")])
    assert subprocess.run(["cpio", "-t"], input=data, capture_output=True, check=True).stdout == b"a\na/b\n"


def test_modules_come_after_those_that_they_depend_on(tmp_path: Path) -> None:
    for name, needs in (("virtiofs", "fuse,virtio"), ("fuse", ""), ("virtio", "virtio-ring"), ("virtio-ring", "")):
        (tmp_path / f"{name}.ko").write_bytes(f"\x7fELF\0depends={needs.replace('-', '_')}\0retpoline=Y\0".encode())
    places = initramfs.modules(tmp_path)
    assert initramfs.in_order(["virtiofs", "virtio"], places) == ["fuse", "virtio_ring", "virtio", "virtiofs"]
    with pytest.raises(KeyError):
        initramfs.in_order(["other"], places)


def test_the_command_is_run_as_it_was_given() -> None:
    made = initramfs.scripts(
        ["sh", "-c", "echo 'a b'; exit 3"],
        folder="/tmp/a folder",
        module_folder="/m",
        needed=("/tmp/a folder", "/usr"),
        mark="exit-1:",
    )
    assert "sh -c 'echo '\"'\"'a b'\"'\"'; exit 3' </dev/null" in made["next"]
    assert "cd '/tmp/a folder'" in made["next"] and 'echo "exit-1: $?"' in made["next"]
    assert "mount -o bind '/host/tmp/a folder' '/new/tmp/a folder'" in made["init"], "it is below one that is empty else"
    assert "/host/usr" not in made["init"]
    for script in made.values():
        assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_a_console_says_is_shown_until_the_exit_code(capsys: pytest.CaptureFixture[str], size: int) -> None:
    whole = "one\r\nzwölf exit-1: 9\r\nexit-2\r\nexit-1: 3\r\nreboot\r\n".encode()
    assert vm.show((whole[i : i + size] for i in range(0, len(whole), size)), "exit-1:") == 3
    assert capsys.readouterr().out == "one\nzwölf exit-1: 9\nexit-2\n"
    assert vm.show([b"pan", b"ic.."], "exit-1:") is None
    assert capsys.readouterr().out == "panic..", "also what is no whole line"


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(vm.os, "geteuid", lambda: 0)
    assert vm.main([]) == vm.NOT_IN_TIME
    assert capsys.readouterr().err == "apt-cache is missing\n"
    monkeypatch.setattr(kernel, "VIRTIOFSD", (f"{tmp_path}/none",))
    with pytest.raises(Missing, match="virtiofsd is missing: install it"):
        kernel.virtiofsd()
    with pytest.raises(Missing, match="busybox is missing: install busybox-static"):
        kernel.program("busybox")
    monkeypatch.setattr(vm.os, "geteuid", lambda: 1000)
    assert vm.main([]) == vm.NOT_IN_TIME


def test_the_newest_kernel_that_is_kept_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for version in ("6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "5.10.0-1-cloud-amd64"):
        (tmp_path / "podplane/vm" / version / "lib/modules" / version).mkdir(parents=True)
    found = kernel.kernel()
    assert found.version == "6.1.0-56-cloud-amd64" and found.image.name == "vmlinuz-6.1.0-56-cloud-amd64"
