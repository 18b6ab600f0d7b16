"""What an agent knew of the cluster, for one that starts while the API is away: it is never behind, or not there."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.access import Access
from podplane.machine import known as module
from podplane.machine.known import KnownCluster, Whose
from tests.unit.machine.test_journal import Disk

WHOSE = Whose("node1", "c", "b", "m")
RESOURCES = ("pods", "nodes")


def kept(folder: Path, whose: Whose = WHOSE) -> KnownCluster:
    return KnownCluster(folder, whose, RESOURCES)


def listed(folder: Path, **pods: bytes) -> KnownCluster:
    """One that was told these pods, and a node."""
    made = kept(folder)
    made.begin()
    made.put("nodes", "node1", b"{}")
    for name, content in pods.items():
        made.put("pods", f"default/{name}", content)
    for resource in RESOURCES:
        made.listed(resource)
    return made


def pods(folder: Path) -> Mapping[str, bytes] | None:
    found = kept(folder).read()
    return None if found is None else found["pods"]


def test_what_was_told_is_read(tmp_path: Path) -> None:
    made = listed(tmp_path, a=b'{"x":"\\t\\n"}', b=b"{}")
    assert kept(tmp_path).read() == {"pods": {"default/a": b'{"x":"\\t\\n"}', "default/b": b"{}"}, "nodes": {"node1": b"{}"}}
    made.put("pods", "default/b", b'{"later":1}')
    made.remove("pods", "default/a")
    made.put("leases", "default/l", b"{}")
    made.flush()
    assert pods(tmp_path) == {"default/b": b'{"later":1}'}
    assert made.path.stat().st_mode & 0o777 == 0o600 and os.listdir(tmp_path) == ["cluster"]


def test_a_list_that_is_not_whole_takes_nobodys_place(tmp_path: Path) -> None:
    listed(tmp_path, a=b"{}").close()
    second = kept(tmp_path)
    second.begin()
    second.put("pods", "default/b", b"{}")
    second.listed("pods")
    assert pods(tmp_path) == {"default/a": b"{}"}
    second.listed("nodes")
    assert pods(tmp_path) == {"default/b": b"{}"} and os.listdir(tmp_path) == ["cluster"]


def test_an_agent_goes_on_with_what_one_before_it_has_kept(tmp_path: Path) -> None:
    listed(tmp_path, a=b"{}").close()
    with (tmp_path / "cluster").open("ab") as file:
        file.write(b'pods\tdefault/torn\t{"metadata"')
    second = kept(tmp_path)
    assert second.read() is not None
    second.begin()
    second.resume()
    second.put("pods", "default/b", b"{}")
    second.flush()
    assert pods(tmp_path) == {"default/a": b"{}", "default/b": b"{}"} and os.listdir(tmp_path) == ["cluster"]


@pytest.mark.parametrize("other", ["node", "cluster", "boot", "models"])
def test_what_is_of_others_is_of_no_use(tmp_path: Path, other: str) -> None:
    listed(tmp_path, a=b"{}")
    assert kept(tmp_path, msgspec.structs.replace(WHOSE, **{other: "x"})).read() is None
    assert pods(tmp_path) is not None


@pytest.mark.parametrize(
    "content", [b"", b"\xff\n", b"{}\n", b"[" * 100_000 + b"\n", msgspec.json.encode(WHOSE) + b"\nx\n\xff\t\n"]
)
def test_what_makes_no_sense_is_of_no_use(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cluster").write_bytes(content)
    assert kept(tmp_path).read() is None


def test_a_line_that_is_no_record_makes_all_of_it_no_use(tmp_path: Path) -> None:
    path = listed(tmp_path, a=b"{}").path
    with path.open("ab") as file:
        file.write(b"default/b {}\n")
    assert pods(tmp_path) is None, "it could not be written anew either"


def test_whose_it_is_says_node_cluster_boot_and_models() -> None:
    one = Whose.of("node1", Access("10.0.0.1", 6443, ca="A"))
    others = Whose.of("node2", Access("10.0.0.1", 6443, ca="A")), Whose.of("node1", Access("10.0.0.1", 6443, ca="B"))
    assert one == Whose.of("node1", Access("10.0.0.1", 6443, token="t", ca="A"))
    assert one not in others and one.boot and one.models


@pytest.mark.parametrize("room", [0, 10])
def test_what_a_full_disk_does_not_keep_is_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    made = listed(tmp_path, a=b"{}")
    Disk(room, monkeypatch)
    made.remove("pods", "default/a")
    made.put("pods", "default/policed", b"{}")
    made.flush()
    assert os.listdir(tmp_path) == [] and "No space left on device: it is not kept any more" in caplog.text
    made.put("pods", "default/c", b"{}")
    made.flush()
    made.close()
    assert pods(tmp_path) is None


def test_a_folder_that_can_not_be_written_to_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = kept(tmp_path / "none")
    made.begin()
    made.put("pods", "default/a", b"{}")
    made.listed("pods")
    made.listed("nodes")
    made.flush()
    assert caplog.text.count("is not kept any more") == 1


CHANGES = st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9))), max_size=30)


@given(before=CHANGES, during=CHANGES, cut=st.integers(0, 40))
def test_written_anew_or_cut_off_it_says_what_was_told(
    before: list[tuple[str, int | None]], during: list[tuple[str, int | None]], cut: int, tmp_path_factory: Any
) -> None:
    folder: Path = tmp_path_factory.mktemp("run")
    expected: dict[str, bytes] = {}
    states: list[dict[str, bytes]] = []

    def tell(made: KnownCluster, changes: list[tuple[str, int | None]]) -> None:
        for name, number in changes:
            if number is None:
                made.remove("pods", name)
                expected.pop(name, None)
            else:
                content = b'{"n":%d}' % number
                made.put("pods", name, content)
                expected[name] = content
            made.flush()
            states.append(dict(expected))

    async def live() -> None:
        made = listed(folder)
        tell(made, before)
        made._compacting = asyncio.create_task(made._compact())
        await asyncio.sleep(0)
        tell(made, during)
        await made._compacting
        assert pods(folder) == expected and os.listdir(folder) == ["cluster"]
        states[:] = [dict(expected)]
        tell(made, before)
        assert pods(folder) == expected
        made.close()

    asyncio.run(live())
    size = (folder / "cluster").stat().st_size
    os.truncate(folder / "cluster", max(0, size - min(cut, 8 * len(before))))
    assert pods(folder) in states, "a writer that is killed at any byte loses at most what was told last"


async def test_it_is_written_anew_when_most_of_it_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE_BYTES", 1000)
    made = listed(tmp_path, stays=b"{}")
    for number in range(500):
        made.put("pods", "default/goes", b'{"n":%d}' % number)
        made.flush()
        if made._compacting is not None:
            await made._compacting
        assert made.path.stat().st_size < 4000
    assert pods(tmp_path) == {"default/stays": b"{}", "default/goes": b'{"n":499}'}
    made.close()


async def test_where_it_can_not_be_written_anew_it_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = listed(tmp_path, a=b"{}")
    made.draft.mkdir()
    made._compacting = asyncio.create_task(made._compact())
    await made._compacting
    assert "can't be written anew: Is a directory" in caplog.text
    made.put("pods", "default/b", b"{}")
    made.flush()
    assert pods(tmp_path) == {"default/a": b"{}", "default/b": b"{}"}


async def test_a_first_list_is_not_written_anew_and_anew_it_is_never_all_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take as much memory as the file has, at 100,000 pods 80 MB."""
    monkeypatch.setattr(module, "SPARE_BYTES", 1000)
    content = b'"%s"' % (b"x" * 1000)
    made = listed(tmp_path, **{f"pod{number}": content for number in range(2000)})
    assert made._compacting is None
    tracemalloc.start()
    try:
        module._write_anew(made.path, made.draft, made.path.stat().st_size)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.draft.read_bytes() == made.path.read_bytes()
    assert most < made.path.stat().st_size / 3
