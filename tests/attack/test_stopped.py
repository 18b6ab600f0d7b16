"""A pod that stops what joins it, by signals: it is killed after a while, and keeps nobody else from starting."""

from __future__ import annotations

import asyncio
import sys

import pytest

from podplane.kernel import zygote_process
from podplane.kernel.process import ProcessError
from podplane.kernel.rootfs import Root
from podplane.kernel.zygote_processes import MAX_STARTING
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained, ends, until

pytestmark = pytest.mark.kernel
STOPPER = """
import os, signal
print("ready", flush=True)
last = os.getpid()
while True:
    for pid in range(last + 1, last + 4):
        try:
            os.kill(pid, signal.SIGSTOP)
            last = pid
        except OSError:
            pass
"""
"""Stops each process that comes after it."""


@contained
async def test_who_is_stopped_on_its_way_into_a_container_is_waited_for_by_nobody(machine: Machine) -> None:
    lab_folder()
    seconds, zygote_process.JOIN_SECONDS = zygote_process.JOIN_SECONDS, 2.0
    try:
        container, reader = machine.talker(f"exec {sys.executable} -I -S -c '{STOPPER}'", root=Root(FOLDER))
        assert await reader.readline() == b"ready\n"
        joined = [machine.start("true", join=container.id) for _ in range(3 * MAX_STARTING)]
        await until(lambda: all(one.pid for one in joined))
        assert await ends(machine.start("true", root=Root(FOLDER))) == 0, "another container starts at once"
        results = await asyncio.gather(*(one.started() for one in joined), return_exceptions=True)
        stopped = {one: str(result) for one, result in zip(joined, results, strict=True) if isinstance(result, ProcessError)}
        assert set(stopped.values()) == {"it did not start within 2 s"}, "of so many it stops some"
        for one in stopped:
            assert await ends(one) == 137
    finally:
        zygote_process.JOIN_SECONDS = seconds
