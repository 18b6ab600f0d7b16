"""The simulated API of benches is one to those who read it."""

from __future__ import annotations

import asyncio

import pytest

from bench.simulated_api import SimulatedApi, slice_of
from podplane.agent.caches import Informers
from podplane.kubeapi.client import Client


async def test_an_agent_reads_the_whole_cluster_and_hears_of_changes() -> None:
    api = SimulatedApi(services=3, pods=1_200, peers=40, own_pods=5)
    informers = Informers(Client(api.handle, ""))
    await informers.sync()
    caches = informers.caches
    assert [len(one.objects) for one in (caches.nodes, caches.services, caches.slices, caches.pods)] == [41, 3, 3, 1_205]
    blocks = {block for node in caches.nodes.objects.values() for block in node.spec.pod_cidrs}
    assert len(blocks) == 41
    assert all(len(caches.pods_by_ip.get(ip)) == 1 for pod in caches.pods.objects.values() for ip in pod.ips)
    came = asyncio.Event()
    caches.slices.subscribe(lambda old, new: came.set())
    watch = asyncio.create_task(caches.informers["endpointslices.discovery.k8s.io"].run())
    try:
        await asyncio.wait_for(api.watched("endpointslices"), 10)
        api.changed("endpointslices", slice_of(1, 40, without=4))
        await asyncio.wait_for(came.wait(), 10)
        assert len(caches.slices.objects["default/s1-a"].endpoints or ()) == 9
    finally:
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch
