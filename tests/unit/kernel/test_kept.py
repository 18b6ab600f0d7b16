"""Sockets that stay open between uses: one is kept, nobody shares it, and none is used again after a failure."""

from __future__ import annotations

import ipaddress
import threading

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeOpener
from podplane.kernel.kept import Kept
from podplane.kernel.namespace import Namespace
from podplane.kernel.parts import Tracked


class Opened:
    """Says whether it was closed."""

    def __init__(self, all_opened: list[Opened]) -> None:
        self.is_closed = False
        all_opened.append(self)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def opened() -> list[Opened]:
    return []


@pytest.fixture
def kept(opened: list[Opened]) -> Kept[Opened]:
    return Kept(lambda: Opened(opened))


def test_it_is_opened_when_it_is_used_first_and_used_again(kept: Kept[Opened], opened: list[Opened]) -> None:
    assert not opened
    for _ in range(3):
        with kept.use() as one:
            assert not one.is_closed
    assert len(opened) == 1 and not opened[0].is_closed
    kept.close()
    assert opened[0].is_closed


def test_who_uses_it_at_the_same_time_has_another_and_one_is_kept(kept: Kept[Opened], opened: list[Opened]) -> None:
    with kept.use() as first, kept.use() as second:
        assert first is not second
    assert sorted(one.is_closed for one in opened) == [False, True]
    with kept.use() as again:
        assert again in opened


def test_threads_never_share_one(kept: Kept[Opened]) -> None:
    in_use, shared = set[int](), list[int]()

    def use() -> None:
        for _ in range(200):
            with kept.use() as one:
                shared.extend({id(one)} & in_use)
                in_use.add(id(one))
                in_use.discard(id(one))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not shared


@pytest.mark.parametrize("failure", [OSError, GeneratorExit])
def test_after_a_failure_or_a_use_that_was_given_up_there_is_a_new_one(
    kept: Kept[Opened], opened: list[Opened], failure: type[BaseException]
) -> None:
    with pytest.raises(failure), kept.use():
        raise failure
    with kept.use() as one:
        assert one is opened[1]
    assert opened[0].is_closed and not opened[1].is_closed


def test_what_is_used_while_it_is_closed_is_closed_after_that(kept: Kept[Opened], opened: list[Opened]) -> None:
    with kept.use() as one:
        kept.close()
        assert not one.is_closed
    assert one.is_closed and len(opened) == 1


def test_walks_through_connections_close_no_socket_for_which_transactions_would_wait() -> None:
    events: list[str] = []

    class Counting(FakeOpener):
        def conntrack(self, namespace: Namespace) -> Tracked:
            made = super().conntrack(namespace)
            events.append("open")
            made.close = lambda: events.append("close")  # type: ignore[method-assign]
            return made

    opener = Counting()
    kernel = Kernel(opener.namespace(), opener)
    for _ in range(3):
        kernel.judge_again([ipaddress.ip_address("10.0.0.1")])
        kernel.forget_connections([ipaddress.ip_address("10.0.0.1")])
        kernel.connections()
    assert events == ["open"]
    kernel.close()
    assert events == ["open", "close"]
