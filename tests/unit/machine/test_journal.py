"""The journal of attachments: whatever moment its writer is killed at, what was acknowledged is read."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.cni.network import Attachment
from podplane.kernel.fakes.world import FakeOpener
from podplane.machine import journal as module
from podplane.machine.journal import Id, Journal, Original
from podplane.machine.originals import KeptSysctls
from podplane.model.view import BridgeNetwork, HostPort

IPS = ("10.244.1.2", "fd00:10:244:1::2")


def attachment(container_id: str = "a", **more: Any) -> Attachment:
    return Attachment(container_id, f"uid-{container_id}", "default", container_id, FakeOpener().namespace(), **more)


def read(path: Path) -> dict[Id, tuple[str, ...]]:
    """What a journal says to whoever opens it: addresses by attachment."""
    journal = Journal(path)
    try:
        return {id_: kept.ips for id_, kept in journal.attachments.items()}
    finally:
        journal.close()


def test_all_that_was_asked_for_is_read_again(tmp_path: Path) -> None:
    asked = attachment(ifname="net1", requested_ips=IPS, host_ports=(HostPort(8080, 80),), mac="02:00:00:00:00:07")
    journal = Journal(tmp_path / "journal")
    journal.attach(asked, IPS, 4711)
    (kept,) = Journal(tmp_path / "journal").attachments.values()
    assert kept.attachment(asked.netns) == asked
    assert (kept.ips, kept.cookie, kept.id) == (IPS, 4711, ("a", "net1"))


def test_the_file_is_for_root_alone(tmp_path: Path) -> None:
    Journal(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_what_was_detached_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for one in ("a", "b"):
        journal.attach(attachment(one), IPS, 0)
    journal.detach(("a", "eth0"))
    size = (tmp_path / "journal").stat().st_size
    journal.detach(("a", "eth0"))
    assert (tmp_path / "journal").stat().st_size == size, "nothing is written of what is not attached"
    assert list(read(tmp_path / "journal")) == [("b", "eth0")]


@given(data=st.data())
def test_a_writer_that_is_killed_at_any_byte_loses_at_most_the_last_record(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal, states, sizes = Journal(path), [dict[Id, tuple[str, ...]]()], [0]
    for name in data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8)):
        if (name, "eth0") in journal.attachments and data.draw(st.booleans()):
            journal.detach((name, "eth0"))
        else:
            journal.attach(attachment(name), (f"10.244.1.{len(states) + 1}",), 0)
        states.append({id_: kept.ips for id_, kept in journal.attachments.items()})
        sizes.append(path.stat().st_size)
    cut = data.draw(st.integers(0, sizes[-1]))
    os.truncate(path, cut)
    whole = max(number for number, size in enumerate(sizes) if size <= cut)
    assert read(path) == states[whole]
    again = Journal(path)
    again.attach(attachment("e"), ("10.244.1.99",), 0)
    assert read(path) == states[whole] | {("e", "eth0"): ("10.244.1.99",)}, "what comes later is read, too"


def test_what_was_allocated_last_is_known_though_it_was_detached(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number, name in enumerate("abc", 2):
        journal.attach(attachment(name), (f"10.244.1.{number}",), 0)
    for name in "bc":
        journal.detach((name, "eth0"))
    assert Journal(tmp_path / "journal").last == ("10.244.1.4",)
    journal.compact()
    assert Journal(tmp_path / "journal").last == ("10.244.1.4",)


def test_a_line_that_makes_no_sense_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal"
    Journal(path).attach(attachment("a"), IPS, 0)
    with path.open("ab") as file:
        file.write(b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n")
        file.write(b'\xff\n{"attach": {"container_id": 7}, "ips": []}\n[]\n{"detach": "a"}\n{"later": {}}\n')
    Journal(path).attach(attachment("b"), IPS, 0)
    assert list(read(path)) == [("a", "eth0"), ("b", "eth0")]
    assert "makes no sense" in caplog.text


@pytest.mark.parametrize("ips", [["x"], [], ["10.244.1.300"], ["10.244.1.2/32"], ["10.244.1.2", ""], ["ä"], [None], "x"])
def test_addresses_that_make_no_sense_cost_only_their_line(tmp_path: Path, ips: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.attach(attachment("a"), IPS, 0)
    line = json.loads(path.read_bytes())
    odd = [line | {"ips": ips, "attach": line["attach"] | {"container_id": "b"}}, {"last": ips or ["y"]}]
    with path.open("ab") as file:
        file.write(b"".join(json.dumps(one).encode() + b"\n" for one in odd))
    assert list(read(path)) == [("a", "eth0")] and Journal(path).last == IPS
    assert "makes no sense" in caplog.text


@pytest.mark.parametrize(
    "subnets", [["10.20.0.1/24"], ["00.20.0.0/24"], ["10.20.0.0/32"], ["10.20.0.0/24", "10.21.0.0/24"], []]
)
def test_subnets_that_make_no_sense_cost_only_their_line(
    tmp_path: Path, subnets: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.attach(attachment("a", further=BridgeNetwork("default/blue", ("10.20.0.0/24",))), ("10.20.0.2",), 0)
    journal.close()
    line = json.loads(path.read_bytes())
    odd = line | {"attach": line["attach"] | {"container_id": "b", "further": line["attach"]["further"] | {"subnets": subnets}}}
    with path.open("ab") as file:
        file.write(json.dumps(odd).encode() + b"\n")
    assert list(read(path)) == [("a", "eth0")]
    assert "makes no sense" in caplog.text


def test_it_is_written_anew_when_most_of_it_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE_LINES", 8)
    path, journal = tmp_path / "journal", Journal(tmp_path / "journal")
    journal.attach(attachment("stays"), IPS, 7)
    for number in range(100):
        journal.attach(attachment("goes"), (f"10.244.1.{number}",), 0)
        assert len(path.read_bytes().splitlines()) <= 2 * 2 + 8 + 1
        assert read(path) == {("stays", "eth0"): IPS, ("goes", "eth0"): (f"10.244.1.{number}",)}
        journal.detach(("goes", "eth0"))
    assert read(path) == {("stays", "eth0"): IPS}
    assert os.listdir(tmp_path) == ["journal"]


def test_what_sysctls_were_is_kept_until_they_are_podplanes_no_longer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    kept = KeptSysctls(journal)
    kept.note("net.ipv4.ip_forward", "0", "1")
    kept.note("net.ipv4.neigh.eth0.proxy_delay", "80", "0")
    assert kept.take("net.ipv4.neigh.eth0.proxy_delay", "0") == "80"
    assert kept.take("net.unknown", "7") == "7"
    journal.compact()
    again = Journal(tmp_path / "journal")
    assert again.originals == {"net.ipv4.ip_forward": Original("net.ipv4.ip_forward", "0", "1")}
    assert KeptSysctls(again).values == {"net.ipv4.ip_forward": "0"}


def test_what_a_full_disk_does_not_keep_of_sysctls_is_known_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptSysctls(Journal(tmp_path / "journal"))
    Disk(0, monkeypatch)
    kept.note("net.ipv4.ip_forward", "0", "1")
    assert kept.values == {"net.ipv4.ip_forward": "0"}
    assert "sysctl=net.ipv4.ip_forward error=No space left" in caplog.text


class Disk:
    """Takes so many bytes more; of a write that is too long, as many as there is room for, as a file system does."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = room
        self._pwrite = os.pwrite
        monkeypatch.setattr(module.os, "pwrite", self.pwrite)

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._pwrite(fd, data[: self.room], at)
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 60])
def test_a_disk_that_is_full_takes_nothing_of_a_record(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, journal = tmp_path / "journal", Journal(tmp_path / "journal")
    journal.attach(attachment("a"), IPS, 0)
    before, disk = path.read_bytes(), Disk(room, monkeypatch)
    with pytest.raises(OSError, match="No space left") as refused:
        journal.attach(attachment("b"), IPS, 0)
    assert refused.value.filename == str(path)
    assert path.read_bytes() == before and list(journal.attachments) == [("a", "eth0")]
    disk.room = 1 << 20
    journal.attach(attachment("c"), IPS, 0)
    assert list(read(path)) == [("a", "eth0"), ("c", "eth0")]


def test_what_was_detached_while_the_disk_was_full_goes_before_another_has_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, journal = tmp_path / "journal", Journal(tmp_path / "journal")
    for name in ("a", "b"):
        journal.attach(attachment(name), (f"10.244.1.{ord(name)}",), 0)
    disk = Disk(0, monkeypatch)
    for name in ("a", "b"):
        with pytest.raises(OSError, match="No space left"):
            journal.detach((name, "eth0"))
    assert not journal.attachments, "it is gone from the kernel, and so for whoever asks"
    with pytest.raises(OSError, match="No space left"):
        journal.attach(attachment("c"), ("10.244.1.97",), 0)
    assert set(read(path)) == {("a", "eth0"), ("b", "eth0")}
    disk.room = 10_000
    journal.attach(attachment("c"), ("10.244.1.97",), 0)
    assert read(path) == {("c", "eth0"): ("10.244.1.97",)}


def test_without_room_for_another_file_it_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, journal = tmp_path / "journal", Journal(tmp_path / "journal")
    journal.attach(attachment("a"), IPS, 0)
    journal.detach(("a", "eth0"))
    journal.attach(attachment("b"), IPS, 0)
    before, disk = path.read_bytes(), Disk(10, monkeypatch)
    journal.compact()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["journal"]
    assert "can't be written anew" in caplog.text
    disk.room = 1 << 20
    journal.attach(attachment("c"), IPS, 0)
    assert list(read(path)) == [("b", "eth0"), ("c", "eth0")]
