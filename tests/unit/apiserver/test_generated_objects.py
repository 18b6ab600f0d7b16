"""Generated objects of every kind, changed by chance, over the real API server and its controllers: nothing fails inside.

`tests/e2e/test_chaos.py` does the same with a lab and all commands; here a run takes a second. By hand: PODPLANE_CHAOS_SEEDS=200.
"""

from __future__ import annotations

import json
import logging
import os
import random
from typing import Any

import pytest

from podplane.apiserver.kinds.resource import Resource
from podplane.kubeapi.messages import Request, Response
from tests.generated import STORED, Generator, Object, repaired
from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.test_kinds import collection

SEEDS = range(int(os.environ.get("PODPLANE_CHAOS_SEEDS", "4")))
STEPS, SETTLE_EVERY, TRIES = 200, 20, 10
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Run:
    """One run of steps over one cluster."""

    def __init__(self, seed: int, cluster: Cluster) -> None:
        self.chance = random.Random(seed)
        self.generator = Generator(self.chance, self.chance.choice((0.1, 0.25, 0.5)))
        self.cluster = cluster
        self.accepted: set[str] = set()

    async def request(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Object]:
        answer = await self.cluster.answer(method, path, body, **query)
        assert isinstance(answer, Response)
        assert answer.status < 500, (method, path, json.dumps(body), answer.body)
        return answer.status, json.loads(answer.body)

    async def create(self, row: Resource) -> None:
        made: Object | None = self.generator.object(row)
        for _ in range(TRIES):
            status, answer = await self.request("POST", collection(row), made)
            if status == 201:
                self.accepted.add(row.id)
            if status != 422 or (made := repaired(made or {}, answer)) is None:
                return

    async def change(self, row: Resource) -> None:
        _, found = await self.request("GET", collection(row), limit="100")
        if not found["items"]:
            return
        metadata = self.chance.choice(found["items"])["metadata"]
        path = f"{collection(row)}/{metadata['name']}"
        match self.chance.randrange(4):
            case 0:
                policy = self.chance.choice(("Foreground", "Background", "Orphan"))
                await self.request("DELETE", path, {"gracePeriodSeconds": 0, "propagationPolicy": policy})
            case 1 if row.has_status:
                await self.request("PATCH", f"{path}/status", {"status": self.generator.status(row)})
            case 2 if row.scale:
                await self.request("PATCH", f"{path}/scale", {"spec": {"replicas": self.chance.randrange(4)}})
            case _:
                labels = {"labels": self.generator.labels(row), "finalizers": None}
                await self.request("PATCH", path, self.generator.object(row) | {"metadata": labels})

    async def show(self, row: Resource) -> None:
        headers = {"authorization": "Bearer secret", "accept": TABLE}
        answer = await self.cluster.server.handle(Request("GET", collection(row), {"limit": ["100"]}, headers))
        assert isinstance(answer, Response) and answer.status == 200

    async def go(self) -> None:
        for step in range(STEPS):
            row = self.chance.choice(STORED)
            await (self.create(row) if self.chance.random() < 0.6 else self.change(row))
            await self.show(row)
            if step % SETTLE_EVERY == 0:
                await self.cluster.settle(self.chance.choice((0, 1, 60)))


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_fails_inside(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run = Run(seed, await Cluster(2).begin())
    await run.go()
    assert not [record for record in caplog.records if record.exc_info and record.exc_info[0]], caplog.text
    assert len(run.accepted) > len(STORED) / 2, "most kinds are accepted in the end, or nothing is tried"


@pytest.mark.parametrize("row", STORED, ids=lambda row: row.id)
async def test_objects_of_each_kind_are_accepted(row: Resource) -> None:
    """Of many, some: a kind whose objects are all refused would not be tried at all."""
    run = Run(1, Cluster(0))
    for _ in range(30):
        await run.create(row)
    assert run.accepted == {row.id}
