"""Logs are read in blocks: the last lines from the end, nothing after the limit, and others have a turn after each block."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.streams import LogRequest
from podplane.runtime import logs
from podplane.runtime.output import ASIDE, LogFile

HEAD = b"2026-01-01T00:00:00.000000000Z stdout "


async def read(path: Path, tail_lines: int | None = None, limit_bytes: int | None = None) -> bytes:
    request = LogRequest("default", "a", tail_lines=tail_lines, limit_bytes=limit_bytes)
    return b"".join([chunk async for chunk in logs.read(path, request)])


def written(folder: Path, aside: list[tuple[str, str]], now: list[tuple[str, str]]) -> Path:
    path = folder / "0.log"
    for place, lines in ((path.with_name(path.name + ASIDE), aside), (path, now)):
        place.write_bytes(b"".join(HEAD + f"{kind} {text}".encode() + b"\n" for kind, text in lines))
    return path


def last(lines: list[tuple[str, str]], count: int) -> bytes:
    """The plain way: join the parts, then take the last ones."""
    whole, begins = list[str](), True
    for kind, text in lines:
        if begins:
            whole.append("")
        begins = kind == "F"
        whole[-1] += text + ("\n" if begins else "")
    return "".join(whole[-count:] if count else []).encode()


LINES = st.lists(st.tuples(st.sampled_from("FFP"), st.text("ab", max_size=5)), max_size=12)


@given(LINES, LINES, st.integers(0, 30), st.integers(1, 200))
def test_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, aside: list[tuple[str, str]], now: list[tuple[str, str]], count: int, block: int
) -> None:
    path = written(tmp_path_factory.mktemp("logs"), aside, now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK_BYTES", block)
        assert asyncio.run(read(path, tail_lines=count)) == last(aside + now, count)
        assert asyncio.run(read(path)) == last(aside + now, 100)


async def test_a_log_that_was_closed_before_it_is_read_has_an_end(tmp_path: Path) -> None:
    """The container can end after its log was asked for and before the first of it is read."""
    log = LogFile(tmp_path / "0.log", lambda: datetime.datetime.now(datetime.UTC))
    log.write("stdout", b"all\n")
    followed = logs.read(log.path, LogRequest("default", "a", follow=True), log)
    log.close()
    async with asyncio.timeout(5):
        assert [chunk async for chunk in followed] == [b"all\n"]
    assert log.listeners == []


@pytest.mark.parametrize("said", [{"limit_bytes": 3}, {"tail_lines": 3}])
async def test_only_what_is_wanted_is_looked_at(tmp_path: Path, said: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = written(tmp_path, [], [("F", "")] * 50_000), list[bytes]()

    class Pattern:
        def fullmatch(self, line: bytes) -> object:
            seen.append(line)
            return found.fullmatch(line)

    found = logs.LINE
    monkeypatch.setattr(logs, "LINE", Pattern())
    assert await read(path, **said) == b"\n\n\n"
    assert len(seen) <= 10


async def test_others_have_a_turn_while_nothing_comes_out(tmp_path: Path) -> None:
    path, turns = written(tmp_path, [], [("F", "")] * 50_000), list[int]()

    async def other() -> None:
        while True:
            turns.append(0)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await read(path, tail_lines=50_000)
    task.cancel()
    assert len(turns) > 10
