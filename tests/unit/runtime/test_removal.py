"""A folder that a pod filled is removed, however deep it is, and nothing else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from podplane.runtime import removal


def deep(folder: Path, levels: int) -> None:
    """Make a path that is longer than any that the kernel takes."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT, dir_fd=fd))
        fd, above = os.open("d", os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(fd)


async def test_it_is_gone_however_deep_it_is(tmp_path: Path) -> None:
    (tmp_path / "pod" / "1" / "2").mkdir(parents=True)
    (tmp_path / "pod" / "2" / "1").mkdir(parents=True)
    (tmp_path / "pod" / "a b").write_text("x")
    deep(tmp_path / "pod" / "2" / "1", 3000)
    before = len(os.listdir("/proc/self/fd"))
    await removal.remove(f"{tmp_path}/pod")
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before
    await removal.remove(f"{tmp_path}/pod")


async def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pod" / "volumes").mkdir(parents=True)
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "file").write_text("x")
    (tmp_path / "pod" / "link").symlink_to(tmp_path / "machine")
    (tmp_path / "pod" / "volumes" / "link").symlink_to("../../machine")
    os.mkfifo(tmp_path / "pod" / "volumes" / "pipe")
    await removal.remove(f"{tmp_path}/pod")
    assert [found for _, *found in os.walk(tmp_path)] == [[["machine"], []], [[], ["file"]]]


async def test_others_have_turns_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    for number in range(200):
        (tmp_path / "pod" / str(number)).touch()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    removal.TURN_SECONDS, before = 0.0, removal.TURN_SECONDS
    try:
        await removal.remove(f"{tmp_path}/pod")
    finally:
        removal.TURN_SECONDS = before
        task.cancel()
    assert turns >= 200
