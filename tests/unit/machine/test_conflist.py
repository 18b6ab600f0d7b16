"""When container engines are told of the network: not before pods can be attached, and for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from podplane.cni.networks import CONFLIST, configuration
from podplane.machine import conflist
from podplane.machine.conflist import NetworkFile


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(conflist, name, 0.001)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(60_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within a minute")


async def test_it_is_written_when_pods_can_be_attached_and_stays_when_they_cannot_any_more(tmp_path: Path) -> None:
    path, asked, why = tmp_path / "net.d" / CONFLIST, 0, ["no block yet"]

    def unready() -> str | None:
        nonlocal asked
        asked += 1
        return next(iter(why), None)

    told = list[str]()
    running = asyncio.create_task(NetworkFile(path.parent, unready, told.append).run())
    await until(lambda: asked > 3)
    assert not path.parent.exists()
    why.clear()
    await until(path.exists)
    assert path.read_bytes() == configuration()
    why.append("the API is away")
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert path.exists() and not told


async def test_what_is_in_the_way_is_told_once_and_then_it_is_written(tmp_path: Path) -> None:
    other = tmp_path / "05-other.conflist"
    other.write_text("{}")
    told = list[str]()
    running = asyncio.create_task(NetworkFile(tmp_path, lambda: None, told.append).run())
    await until(lambda: bool(told))
    await asyncio.sleep(0.02)
    assert told == [
        f"container engines do not use podplane's network: {other} comes before {CONFLIST}, and engines take the first network: "
        "move it away, or have it moved aside (--replace)"
    ]
    other.unlink()
    await until((tmp_path / CONFLIST).exists)
    running.cancel()
    await asyncio.wait([running])


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = list[str]()
    running = asyncio.create_task(NetworkFile(tmp_path / "file" / "net.d", lambda: None, told.append).run())
    await until(lambda: bool(told))
    assert told[0].endswith(f"{tmp_path}/file/net.d: Not a directory")
    running.cancel()
    await asyncio.wait([running])


async def test_what_comes_later_is_told_or_moved_aside_and_what_went_is_written_again(tmp_path: Path) -> None:
    path, other = tmp_path / CONFLIST, tmp_path / "05-other.conflist"
    told = list[str]()
    running = asyncio.create_task(NetworkFile(tmp_path, lambda: None, told.append).run())
    await until(path.exists)
    other.write_text("{}")
    await until(lambda: bool(told))
    running.cancel()
    await asyncio.wait([running])
    running = asyncio.create_task(NetworkFile(tmp_path, lambda: None, told.append, replace=True).run())
    await until(lambda: not other.exists())
    path.unlink()
    await until(path.exists)
    await until(lambda: len(told) == 2)
    assert (
        told[1] == f"container engines use podplane's network from now on: moved {other} aside, to {other.name}.podplane-saved"
    )
    running.cancel()
    await asyncio.wait([running])
