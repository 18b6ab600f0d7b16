"""Work beside an event loop: what is little is done at once, and a thread does what is much."""

from __future__ import annotations

import threading

import pytest

from podplane.agent.pause import SOME, beside


@pytest.mark.parametrize(("size", "is_beside"), [(0, False), (SOME, False), (SOME + 1, True)])
async def test_a_thread_goes_through_what_is_much(size: int, is_beside: bool) -> None:
    thread, numbers = await beside(size, lambda *numbers: (threading.get_ident(), numbers), 1, 2)
    assert numbers == (1, 2)
    assert (thread != threading.get_ident()) is is_beside


@pytest.mark.parametrize("size", [0, SOME + 1])
async def test_what_it_raises_is_raised(size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        await beside(size, lambda: 1 // 0)
