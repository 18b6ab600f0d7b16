"""Namespaces that go, with everything in them, when nothing holds it any more."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.controllers.cluster import Cluster, workload
from tests.unit.apiserver.test_server import Object

TEAM = "/api/v1/namespaces/team"
CONFIG = {"metadata": {"name": "held", "finalizers": ["example.com/backup"]}}


@pytest.fixture
async def cluster() -> Cluster:
    """A namespace with a Deployment whose pods run."""
    made = await Cluster().begin()
    await made("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await made.settle()
    await made("POST", "/apis/apps/v1/namespaces/team/deployments", workload("web", 3))
    await made.settle()
    return made


async def pods(cluster: Cluster) -> list[Object]:
    found: list[Object] = (await cluster("GET", f"{TEAM}/pods"))["items"]
    return found


async def end_pods(cluster: Cluster) -> None:
    """As their nodes do it."""
    for pod in await pods(cluster):
        await cluster("DELETE", f"{TEAM}/pods/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    await cluster.settle()


async def test_a_namespace_gets_what_pods_need(cluster: Cluster) -> None:
    assert await cluster.names(f"{TEAM}/serviceaccounts") == ["default"]
    await cluster("DELETE", f"{TEAM}/serviceaccounts/default")
    await cluster("PATCH", f"{TEAM}/configmaps/kube-root-ca.crt", {"data": {"ca.crt": "forged", "more": "x"}})
    await cluster.settle()
    assert await cluster.names(f"{TEAM}/serviceaccounts") == ["default"]
    assert (await cluster("GET", f"{TEAM}/configmaps/kube-root-ca.crt"))["data"] == {"ca.crt": "AUTHORITY"}


async def test_it_waits_for_its_pods_and_nothing_is_made_anew(cluster: Cluster) -> None:
    await cluster("DELETE", TEAM)
    await cluster.settle()
    assert (await cluster("GET", TEAM))["status"]["phase"] == "Terminating"
    left = await pods(cluster)
    assert len(left) == 3
    assert all("deletionTimestamp" in pod["metadata"] for pod in left)
    assert await cluster.names(f"{TEAM}/serviceaccounts") == ["default"], "what pods may need goes after them (KEP-5080)"
    refusal = await cluster.refused("Forbidden", "POST", f"{TEAM}/configmaps", {"metadata": {"name": "late"}})
    assert "because it is being terminated" in refusal
    await end_pods(cluster)
    await cluster.refused("NotFound", "GET", TEAM)


async def test_a_finalizer_holds_it_until_it_is_taken_away(cluster: Cluster) -> None:
    await cluster("POST", f"{TEAM}/configmaps", CONFIG)
    await cluster("DELETE", TEAM)
    await cluster.settle()
    await end_pods(cluster)
    assert (await cluster("GET", TEAM))["status"]["phase"] == "Terminating"
    assert await cluster.names(f"{TEAM}/configmaps") == ["held"]
    await cluster("PATCH", f"{TEAM}/configmaps/held", {"metadata": {"finalizers": None}})
    await cluster.refused("NotFound", "GET", TEAM)


async def test_others_stay_and_the_name_is_free_again(cluster: Cluster) -> None:
    await cluster.pod("mine")
    await cluster("DELETE", TEAM)
    await end_pods(cluster)
    assert await cluster.names("/api/v1/namespaces/default/pods") == ["mine"]
    await cluster("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await cluster.settle()
    assert await pods(cluster) == []
    assert await cluster.names(f"{TEAM}/serviceaccounts") == ["default"]
