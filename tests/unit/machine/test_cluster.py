"""An agent that starts while the API is away goes on with what one before it knew, and waits where there is nothing of that."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from podplane.agent.caches import KEPT
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request, Response
from podplane.kubeapi.supervise import Supervisor
from podplane.machine import cluster as module
from podplane.machine.cluster import Cluster, Waiting
from podplane.machine.known import KnownCluster, Whose

WHOSE = Whose("node1", "c", "b", "m")
NODE = {"metadata": {"name": "node1", "uid": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}
POLICY = {"metadata": {"name": "deny", "namespace": "default", "uid": "p"}, "spec": {"podSelector": {}}}
POD = {"metadata": {"name": "web", "namespace": "default", "uid": "w", "labels": {"app": "web"}}}


class Api:
    """Lists of three kinds; or it is away: it can't be reached, or says nothing; or it does not know the agent's token any more."""

    def __init__(self) -> None:
        self.objects = {"nodes": [NODE], "networkpolicies": [POLICY], "pods": [POD]}
        self.is_away = self.is_silent = self.is_refusing = False

    async def __call__(self, request: Request) -> Answer:
        if self.is_away:
            raise ApiError(503, "", "connection refused")
        if self.is_refusing:
            return Response(401, b'{"reason": "Unauthorized", "message": "the token has expired"}')
        if self.is_silent:
            await asyncio.sleep(3600)
        if request.flag("watch"):
            await asyncio.sleep(3600)
        items = self.objects.get(request.path.rpartition("/")[2], [])
        return Response(200, json.dumps({"metadata": {"resourceVersion": "7"}, "items": items}).encode())


class Process:
    """An agent's process, as far as it knows the cluster."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.said: list[str] = []
        self.supervisor = Supervisor()
        self.kept = KnownCluster(folder, WHOSE, KEPT)
        self.cluster = Cluster(Client(api, "t"), self.supervisor, "node1", Waiting(self.said.append), self.kept)

    async def start(self) -> None:
        await asyncio.wait_for(self.cluster.known(), 10)

    async def kill(self) -> None:
        await self.supervisor.close()
        self.kept.close()

    @property
    def known(self) -> dict[str, set[str]]:
        caches = self.cluster.caches
        kinds = {"nodes": caches.nodes, "policies": caches.policies, "pods": caches.pods}
        return {name: set(cache.objects) for name, cache in kinds.items()}


ALL = {"nodes": {"node1"}, "policies": {"default/deny"}, "pods": {"default/web"}}


async def test_an_error_that_nobody_thought_of_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Client, request: Request) -> Answer:
        raise RuntimeError("odd")

    monkeypatch.setattr(Client, "_send", fails)
    process = Process(Api(), tmp_path)
    with pytest.raises(RuntimeError, match="odd"):
        await process.start()
    await process.kill()


@pytest.mark.parametrize("how", ["is_away", "is_silent", "is_refusing"])
async def test_what_was_known_is_gone_on_with(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.05)
    api = Api()
    first = Process(api, tmp_path)
    await first.start()
    assert first.known == ALL
    await first.kill()
    setattr(api, how, True)
    for _ in range(2):
        later = Process(api, tmp_path)
        await later.start()
        assert later.known == ALL and not later.said
        assert later.cluster.caches.pods.objects["default/web"].metadata.labels == {"app": "web"}
        assert (await later.cluster.node()).internal_ips == ("10.0.0.1",)
        assert not any(one.is_synced for one in later.cluster.caches.informers.values())
        why = "the API refuses the credentials of this agent (401)" if how == "is_refusing" else "the API is away"
        assert [one.getMessage().partition(": ")[0] for one in caplog.records if "it begins with" in one.message] == [why]
        caplog.clear()
        await later.kill()
    setattr(api, how, False)
    api.objects["pods"] = []
    last = Process(api, tmp_path)
    await last.start()
    assert last.known == ALL | {"pods": set()}
    await last.kill()


async def test_what_was_missed_is_caught_up_with_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    first = Process(api, tmp_path)
    await first.start()
    await first.kill()
    api.is_away = True
    later = Process(api, tmp_path)
    await later.start()
    api.is_away, api.objects["networkpolicies"] = False, []
    informers = later.cluster.caches.informers.values()
    for _ in range(500):
        if all(one.is_synced for one in informers):
            break
        await asyncio.sleep(0.01)
    assert later.known == ALL | {"policies": set()}
    assert KnownCluster(tmp_path, WHOSE, KEPT).read()["networkpolicies.networking.k8s.io"] == {}  # type: ignore[index]  # read
    await later.kill()


@pytest.mark.parametrize("is_there", [False, True])
async def test_without_its_node_or_anything_known_it_waits(tmp_path: Path, is_there: bool) -> None:
    api = Api()
    if is_there:
        api.objects["nodes"] = []
        first = Process(api, tmp_path)
        await first.start()
        await first.kill()
    api.is_away = True
    later = Process(api, tmp_path)
    waiting = asyncio.create_task(later.start())
    await asyncio.sleep(0.05)
    assert not waiting.done() and later.said == ["waiting for the API: connection refused"]
    api.is_away, api.objects["nodes"] = False, [NODE]
    await waiting
    assert later.known == ALL
    await later.kill()


async def test_credentials_that_are_refused_are_told_as_that(tmp_path: Path) -> None:
    api = Api()
    api.is_refusing = True
    process = Process(api, tmp_path)
    waiting = asyncio.create_task(process.start())
    await asyncio.sleep(0.05)
    refused = "the API refuses the credentials of this agent (401), and is asked again: the token has expired"
    assert not waiting.done() and process.said == [refused]
    api.is_refusing = False
    await waiting
    await process.kill()
