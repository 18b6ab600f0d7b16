"""`pods/ephemeralcontainers`: containers can be added to a pod, and nothing else can be done there."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.apiserver.test_server import PODS, Api, Object

WAY = f"{PODS}/web/ephemeralcontainers"
LOOK: Object = {"name": "look", "image": "podplane/client", "stdin": True}


@pytest.fixture
async def api() -> Api:
    made = Api()
    await made.pod("web", volumes=[{"name": "data", "emptyDir": {}}])
    return made


def wish(*containers: Object) -> Object:
    """A patch that wants these."""
    return {"spec": {"ephemeralContainers": list(containers)}}


async def test_containers_are_added_and_completed(api: Api) -> None:
    before = await api("GET", WAY)
    made = await api("PATCH", WAY, wish(LOOK))
    assert made["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "Always"
    assert made["metadata"]["generation"] == before["metadata"]["generation"] + 1
    changed = copy.deepcopy(made)
    changed["spec"]["ephemeralContainers"].append({**LOOK, "name": "again", "targetContainerName": "main"})
    changed["spec"]["containers"][0]["image"] = "other"
    changed["metadata"]["labels"] = {"a": "b"}
    after = await api("PUT", WAY, changed)
    assert [one["name"] for one in after["spec"]["ephemeralContainers"]] == ["look", "again"]
    assert after["spec"]["containers"] == before["spec"]["containers"]
    assert after["metadata"].get("labels") == before["metadata"].get("labels")
    assert await api("GET", f"{PODS}/web") == after


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "main"}, 'spec.ephemeralContainers[1].name: Duplicate value: "main"'),
        ({"ports": [{"containerPort": 80}]}, "spec.ephemeralContainers[1].ports: Forbidden: cannot be set"),
        ({"resources": {"limits": {"cpu": "1"}}}, "spec.ephemeralContainers[1].resources: Forbidden"),
        ({"livenessProbe": {"tcpSocket": {"port": 80}}}, "spec.ephemeralContainers[1].livenessProbe: Forbidden"),
        ({"image": ""}, "spec.ephemeralContainers[1].image: Required value"),
        ({"targetContainerName": "side"}, 'spec.ephemeralContainers[1].targetContainerName: Not found: "side"'),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x", "subPath": "y"}]}, "volumeMounts[0].subPath: Forbidden"),
    ],
)
async def test_what_such_a_container_cannot_be(api: Api, more: Object, words: str) -> None:
    await api("PATCH", WAY, wish(LOOK))
    assert words in await api.refused("Invalid", "PATCH", WAY, wish(LOOK, {"name": "new", "image": "x", **more}))


@pytest.mark.parametrize(
    ("containers", "words"),
    [((), 'containers "look" may not be removed'), (({**LOOK, "tty": True},), 'containers "look" may not be changed')],
)
async def test_those_that_are_there_stay_as_they_are(api: Api, containers: tuple[Object, ...], words: str) -> None:
    await api("PATCH", WAY, wish(LOOK))
    assert words in await api.refused("Invalid", "PATCH", WAY, wish(*containers))


async def test_there_is_no_other_way_to_have_them(api: Api) -> None:
    both: dict[str, Any] = {"containers": [{"name": "main", "image": "x"}], "ephemeralContainers": [LOOK]}
    new = {"metadata": {"name": "new"}, "spec": both}
    assert "cannot be set on create" in await api.refused("Invalid", "POST", PODS, new)
    assert "changed are ephemeralContainers" in await api.refused("Invalid", "PATCH", f"{PODS}/web", wish(LOOK))
    await api.refused("NotFound", "GET", "/apis/apps/v1/namespaces/default/deployments/web/ephemeralcontainers")
