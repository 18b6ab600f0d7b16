"""What a name server tells over HTTP, and to whom."""

from __future__ import annotations

import json

import msgspec
import pytest

from podplane.kubeapi.supervise import TaskReport
from podplane.model.name_server import NameServerStatus
from tests.unit.nameserver.rig import Rig


async def test_health_and_ready_are_for_everybody() -> None:
    rig = Rig()
    assert (await rig.ask("/health")).status == 200
    before = await rig.ask("/ready")
    assert (before.status, before.body) == (503, b"services\nendpointslices.discovery.k8s.io\nnamespaces\npods\nconfigmaps")
    await rig.start()
    after = await rig.ask("/ready")
    assert (after.status, after.body) == (200, b"OK")


async def test_what_it_waits_for_is_named() -> None:
    rig = Rig()
    await rig.objects.informers[0].sync()
    assert (await rig.ask("/ready")).body == b"endpointslices.discovery.k8s.io\nnamespaces\npods\nconfigmaps"
    await rig.objects.sync()
    await rig.configuration.sync()
    assert (await rig.ask("/ready")).body == b"sockets"


@pytest.mark.parametrize("path", ["/status", "/nothing", "/"])
async def test_all_else_needs_a_right(path: str) -> None:
    rig = Rig()
    await rig.start()
    nobody = await rig.ask(path)
    assert (nobody.status, dict(nobody.headers)) == (401, {"www-authenticate": "Bearer"})
    assert (await rig.ask(path, "stolen")).status == 401
    assert (await rig.ask(path, "reader")).status == (200 if path == "/status" else 404)


async def test_the_status_has_its_shape_and_the_age_of_what_is_known() -> None:
    rig = Rig(restarts=2)
    rig.tasks["watch of services"] = TaskReport(False, 1, "OSError()", 0.0)
    assert rig.state.status("node1").heard_age is None
    await rig.start()
    heard = min(one.heard for one in rig.objects.informers)
    rig.clock.now = heard + 7
    found = msgspec.json.decode((await rig.ask("/status", "reader")).body, type=NameServerStatus)
    assert (found.node, found.restarts, found.missing) == ("node1", 2, [])
    assert found.heard_age == pytest.approx(7)
    assert [(one.name, one.is_running, one.restarts) for one in found.tasks] == [("watch of services", False, 1)]
    assert {one.resource: one.is_synced for one in found.caches}["services"]
    assert found.api is not None and found.api.is_reached


async def test_what_the_api_says_makes_the_knowledge_new() -> None:
    rig = Rig()
    await rig.start()
    services = rig.objects.informers[0]
    services.heard = 1.0
    rig.clock.now = 31.0
    status = json.loads((await rig.ask("/status", "reader")).body)
    assert status["heard_age"] == pytest.approx(30.0)
    await services.sync()
    assert services.heard > 1.0
