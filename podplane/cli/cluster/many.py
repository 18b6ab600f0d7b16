"""The same done to many objects of the API: some at once, each over a connection of its own, because one after the other is slow."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from podplane.kubeapi.http import TIMEOUT_SECONDS

AT_ONCE = 8
T = TypeVar("T")
R = TypeVar("R")
Client = Any


def each(client: Client, items: Sequence[T], do: Callable[[Client, T], R]) -> list[R]:
    """What `do` returns for each, in order; at most AT_ONCE at a time. What it raises ends that, and none is begun any more."""
    if len(items) <= 1:
        return [do(client, one) for one in items]
    clients: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def with_a_client(item: T) -> R:
        own = clients.get()
        try:
            return do(own, item)
        finally:
            clients.put(own)

    count = min(AT_ONCE, len(items))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        for _ in range(count):
            clients.put(stack.enter_context(client.another(TIMEOUT_SECONDS)))
        return list(pool.map(with_a_client, items))
