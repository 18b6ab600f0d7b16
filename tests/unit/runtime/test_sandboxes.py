"""Sandboxes and file systems that the zygote is asked for: what was asked for in vain is let go of."""

from __future__ import annotations

import asyncio
import errno
from typing import Any, cast

import pytest

from podplane.kernel.process import Processes
from podplane.kernel.zygote_answers import Silent
from podplane.runtime import sandboxes
from podplane.runtime.environment import ConfigError

SILENT = Silent(errno.ETIMEDOUT, "the zygote does not answer")


class Asked:
    """A sandbox, or file systems, that never come."""

    id = 1

    def __init__(self, error: OSError | None) -> None:
        self._error = error
        self.is_released = False

    async def _never(self) -> Any:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()

    netns = made = _never

    def release(self) -> None:
        self.is_released = True


class Zygote:
    def __init__(self, error: OSError | None) -> None:
        self.asked = Asked(error)

    def make_sandbox(self, user: int, group: int) -> Asked:
        return self.asked

    def make_mounts(self, wanted: object) -> Asked:
        return self.asked


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SILENT])
async def test_what_was_asked_for_in_vain_is_let_go_of(error: OSError) -> None:
    zygote = Zygote(error)
    with pytest.raises(OSError, match=error.strerror):
        await sandboxes.make(cast(Processes, zygote), cast(Any, None))
    assert zygote.asked.is_released
    zygote = Zygote(error)
    with pytest.raises(ConfigError, match=error.strerror):
        await sandboxes.mounts(cast(Processes, zygote), [])
    assert zygote.asked.is_released


@pytest.mark.parametrize("what", ["sandbox", "mounts"])
async def test_who_waits_no_longer_lets_go_of_it(what: str) -> None:
    zygote = Zygote(None)
    processes = cast(Processes, zygote)
    coroutine: Any = sandboxes.make(processes, cast(Any, None)) if what == "sandbox" else sandboxes.mounts(processes, [])
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert zygote.asked.is_released


def test_a_silent_zygote_is_no_matter_of_sysctls() -> None:
    assert "sysctl" not in sandboxes.no_namespace(SILENT)
    assert "ulimit -u" in sandboxes.no_namespace(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))
    assert "user.max_net_namespaces" in sandboxes.no_namespace(OSError(errno.ENOSPC, "No space left on device"))
