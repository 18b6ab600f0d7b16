"""The end of a start: pods that are wanted are created, and every pod had its first start, or it is said which had none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists
from podplane.lab.launch import Progress, Reporter
from podplane.runtime.kubelet import Kubelet
from podplane.runtime.pod import PodWorker

SETTLE_SECONDS = 120.0
PROGRESS_SECONDS = 0.25
SETTLE_REST, LEAST_REST, LONGEST_REST = 200, 0.002, 0.05
"""After a look which pods had their first start, the next one waits so many times as long as it took, and so many seconds at least and
at most."""


async def create_pods(client: Client, wanted: Iterable[Mapping[str, Any]]) -> None:
    """Create these pods, but for those that are there. ApiError."""
    for manifest in wanted:
        with contextlib.suppress(AlreadyExists):
            await client.create("pods", "default", manifest)


async def settle(kubelets: Mapping[str, Kubelet], pods: Collection[str], wanted: int, reporter: Reporter) -> None:
    """Wait until every pod had its first start; `pods` grows until it has all those `wanted`. What the last run said of those that had none
    in time is true no longer."""
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    end, tell_at = loop.time() + SETTLE_SECONDS, 0.0
    while (now := loop.time()) < end:
        workers = list(_workers(kubelets))
        settled = sum(worker.settled.is_set() for worker in workers)
        if len(pods) >= wanted and settled == len(workers):
            return
        if now >= tell_at:
            reporter.step("pods", settled, max(wanted, len(workers)))
            tell_at = now + PROGRESS_SECONDS
        await asyncio.sleep(min(max(SETTLE_REST * (loop.time() - now), LEAST_REST), LONGEST_REST))
    await _report_late(list(_workers(kubelets)), reporter)


async def _report_late(workers: Collection[PodWorker], reporter: Reporter) -> None:
    if late := [worker for worker in workers if not worker.settled.is_set()]:
        for worker in late:
            await worker.report()
        what = f"of {len(workers)} pods, {len(late)} had no first start within {SETTLE_SECONDS:g} s"
        reporter.send(Progress(note=f"{what}: {late[0].path} waits, for one."))


def _workers(kubelets: Mapping[str, Kubelet]) -> Iterator[PodWorker]:
    return (worker for kubelet in kubelets.values() for worker in kubelet.workers.values())
