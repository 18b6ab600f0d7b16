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
from podplane.runtime.sandboxes import SandboxMaker

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


class Numbered:
    """A zygote that makes what it is asked for, and says for whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.made: list[Asked] = []
        self.refuses = self.takes_a_turn = False

    def make_sandbox(self, user: int, group: int) -> Any:
        self.asked.append((user, group))
        made = Asked(OSError(errno.ENOSPC, "No space left on device") if self.refuses else None)
        if not self.refuses:
            made.netns = self._netns  # type: ignore[method-assign]
            self.made.append(made)
        return made

    async def _netns(self) -> int:
        if self.takes_a_turn:
            await asyncio.sleep(0)
        return -1


def maker(zygote: Numbered) -> SandboxMaker:
    return SandboxMaker(cast(Processes, zygote), cast(Any, None))


async def rested() -> None:
    await asyncio.sleep(2 * sandboxes.REST_SECONDS)


async def test_the_next_pod_gets_what_was_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "REST_SECONDS", 0.001)
    zygote = Numbered()
    own = maker(zygote)
    await own.make()
    await rested()
    assert len(zygote.asked) == 1  # a lab that starts makes nothing ahead
    own.keep_one_ahead()
    await rested()
    assert len(zygote.asked) == 2
    spare = await own.make()
    assert len(zygote.asked) == 2
    assert await own.make() is not spare
    await own.make(7, 7)
    assert zygote.asked[2:] == [(0, 0), (7, 7)]
    await rested()
    assert zygote.asked[4:] == [(0, 0)]
    await own.make(7, 7)
    assert zygote.asked[5:] == [(7, 7)]  # what is there has other users


async def test_what_can_not_be_made_ahead_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "REST_SECONDS", 0.001)
    zygote = Numbered()
    zygote.refuses = True
    own = maker(zygote)
    own.keep_one_ahead()
    await rested()
    with pytest.raises(OSError, match="No space"):
        await own.make()
    zygote.refuses = False
    await rested()
    asked = len(zygote.asked)
    await own.make()
    assert len(zygote.asked) == asked


def test_a_silent_zygote_is_no_matter_of_sysctls() -> None:
    assert "sysctl" not in sandboxes.no_namespace(SILENT)
    assert "ulimit -u" in sandboxes.no_namespace(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))
    assert "user.max_net_namespaces" in sandboxes.no_namespace(OSError(errno.ENOSPC, "No space left on device"))


async def test_those_of_many_pods_are_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "REST_SECONDS", 0.001)
    zygote = Numbered()
    zygote.takes_a_turn = True
    own = maker(zygote)
    own.make_ahead(20)
    await asyncio.sleep(0)
    assert len(zygote.asked) == sandboxes.AT_ONCE
    await asyncio.sleep(0.05)
    assert len(zygote.asked) == 20
    await asyncio.gather(*(own.make() for _ in range(17)))
    assert len(zygote.asked) == 20
    assert not any(one.is_released for one in zygote.made)
    own.keep_one_ahead()
    await rested()
    assert sum(one.is_released for one in zygote.made) == 2
    assert len(zygote.asked) == 20
    await own.make()
    await rested()
    assert len(zygote.asked) == 21


async def test_who_comes_before_those_made_ahead_is_one_of_the_many() -> None:
    zygote = Numbered()
    zygote.takes_a_turn = True
    own = maker(zygote)
    own.make_ahead(20)
    await asyncio.gather(*(own.make() for _ in range(15)), own.make(7, 7))
    await rested()
    assert zygote.asked.count((7, 7)) == 1
    assert len(zygote.asked) <= 21 + sandboxes.AT_ONCE  # those that were on their way


async def test_those_of_many_pods_that_can_not_be_made_are_not_tried_again() -> None:
    zygote = Numbered()
    zygote.refuses = True
    maker(zygote).make_ahead(20)
    await rested()
    assert len(zygote.asked) <= sandboxes.AT_ONCE
