"""What the control plane decides on writing: blocks of nodes, places of pods, and who may be in a namespace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.services import pools
from tests.unit.apiserver.test_server import POD, PODS, Api

Object = dict[str, Any]
NODES, NAMESPACES = "/api/v1/nodes", "/api/v1/namespaces"


def blocks(node: Object) -> list[str]:
    found: list[str] = node["spec"]["podCIDRs"]
    return found


# Nodes.


@pytest.mark.parametrize(
    ("cidrs", "expected"),
    [
        (("10.0.0.0/8",), ["10.0.1.0/24"]),
        (("fd00::/56",), ["fd00:0:0:1::/64"]),
        (("fd00::/48", "10.0.0.0/16"), ["fd00:0:0:1::/64", "10.0.1.0/24"]),
        (("10.0.0.0/26", "fd00::/80"), ["10.0.0.0/26", "fd00::/80"]),
    ],
)
async def test_a_node_gets_a_block_of_each_family_in_the_order_of_the_plan(cidrs: tuple[str, ...], expected: list[str]) -> None:
    node = await Api(cidrs=cidrs).node("n1")
    assert blocks(node) == expected
    assert node["spec"]["podCIDR"] == expected[0]


async def test_when_one_family_is_exhausted_nothing_of_the_other_is_lost() -> None:
    api = Api(cidrs=("10.244.0.0/22", "fd00::/63"))
    await api.node("n1")
    await api.node("n2")
    for _ in range(5):
        message = await api.refused("Forbidden", "POST", NODES, {"metadata": {"name": "n3"}})
        assert "fd00::/63 has 2 blocks of /64, all in use" in message
    await api("DELETE", f"{NODES}/n1")
    assert blocks(await api.node("n3"))[1] == "fd00:0:0:1::/64"
    assert await api.names(NODES) == ["n2", "n3"]


async def test_a_node_that_brings_its_block_has_it_for_itself() -> None:
    api = Api(cidrs=("10.244.0.0/22",))
    own = await api.node("own", podCIDRs=["10.244.2.0/24"])
    assert own["spec"]["podCIDR"] == "10.244.2.0/24"
    given = [blocks(await api.node(f"n{i}"))[0] for i in range(3)]
    assert sorted([*given, "10.244.2.0/24"]) == [f"10.244.{i}.0/24" for i in range(4)]


async def test_blocks_are_remembered_over_a_restart(tmp_path: Path) -> None:
    first = Api(tmp_path / "state.db", cidrs=("10.244.0.0/22",))
    taken = [blocks(await first.node(f"n{i}"))[0] for i in range(3)]
    first.store.close()
    second = Api(tmp_path / "state.db", cidrs=("10.244.0.0/22",))
    assert blocks(await second.node("last"))[0] not in taken
    await second.refused("Forbidden", "POST", NODES, {"metadata": {"name": "more"}})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=25))
def test_no_two_nodes_ever_share_a_block(steps: list[tuple[bool, int]]) -> None:
    async def run() -> None:
        api = Api(cidrs=("10.244.0.0/22", "fd00::/62"))
        held: dict[str, list[str]] = {}
        for create, number in steps:
            name = f"n{number}"
            if create and name not in held and len(held) < 4:
                held[name] = blocks(await api.node(name))
            elif not create and name in held:
                await api("DELETE", f"{NODES}/{name}")
                del held[name]
            flat = [block for node in held.values() for block in node]
            assert len(flat) == len(set(flat)) == 2 * len(held)

    asyncio.run(run())


async def test_a_block_that_is_another_nodes_is_not_given_twice() -> None:
    api = Api(cidrs=("10.244.0.0/23",))
    await api.node("n1")
    answer = await api.answer("POST", NODES, {"metadata": {"name": "n2"}, "spec": {"podCIDRs": ["10.244.1.0/24"]}})
    if answer.status == 201:
        await api("DELETE", f"{NODES}/n2")
    others = [blocks(await api.node("n3"))[0]]
    answer = await api.answer("POST", NODES, {"metadata": {"name": "n4"}})
    others += ["10.244.1.0/24"] if answer.status == 201 else []
    assert "10.244.1.0/24" not in others


# Pods.


async def test_defaults_are_kubernetes_own_and_what_is_said_stays() -> None:
    api = Api()
    spec = (await api.pod("a"))["spec"]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"], spec["dnsPolicy"]) == ("Always", 30, "ClusterFirst")
    said: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default"}
    spec = (await api.pod("b", **said))["spec"]
    assert {key: spec[key] for key in said} == said


async def test_a_new_pod_is_pending_whatever_it_says() -> None:
    body = {"metadata": {"name": "a"}, **POD, "status": {"phase": "Running", "podIP": "10.244.1.2"}}
    status = (await Api()("POST", PODS, body))["status"]
    assert status["phase"] == "Pending"
    assert "podIP" not in status


# Namespaces.


async def test_every_cluster_has_its_namespaces() -> None:
    api = Api()
    assert await api.names(NAMESPACES) == ["default", "kube-node-lease", "kube-public", "kube-system"]
    default = await api("GET", f"{NAMESPACES}/default")
    assert default["status"] == {"phase": "Active"}
    assert default["metadata"]["labels"] == {"kubernetes.io/metadata.name": "default"}
    assert default["spec"]["finalizers"] == ["kubernetes"]


async def test_bootstrapping_again_changes_nothing() -> None:
    api = Api()
    before, version = await api("GET", NAMESPACES), api.store.version
    api.server.bootstrap()
    assert (await api("GET", NAMESPACES), api.store.version) == (before, version)


async def test_an_empty_namespace_goes_at_once_and_can_come_again() -> None:
    api = Api()
    first = await api("POST", NAMESPACES, {"metadata": {"name": "team"}})
    await api("DELETE", f"{NAMESPACES}/team")
    await api.refused("NotFound", "GET", f"{NAMESPACES}/team")
    again = await api("POST", NAMESPACES, {"metadata": {"name": "team"}})
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


async def test_pods_without_a_node_go_with_their_namespace_at_once() -> None:
    api = Api()
    await api("POST", NAMESPACES, {"metadata": {"name": "team"}})
    for name in ("a", "b"):
        await api.pod(name, "team")
    await api("DELETE", f"{NAMESPACES}/team")
    assert await api.names("/api/v1/pods") == []
    await api.refused("NotFound", "GET", f"{NAMESPACES}/team")


async def test_deleting_a_namespace_twice_is_deleting_it_once() -> None:
    api = Api()
    await api.node("n1")
    await api("POST", NAMESPACES, {"metadata": {"name": "team"}})
    await api.pod("a", "team", nodeName="n1")
    first = await api("DELETE", f"{NAMESPACES}/team")
    assert await api("DELETE", f"{NAMESPACES}/team") == first
    await api.refused("AlreadyExists", "POST", NAMESPACES, {"metadata": {"name": "team"}})


@pytest.mark.parametrize("name", ["a.b", "x" * 64, "A"])
async def test_a_namespace_is_named_by_a_dns_label(name: str) -> None:
    await Api().refused("Invalid", "POST", NAMESPACES, {"metadata": {"name": name}})


async def test_the_path_says_the_namespace() -> None:
    api = Api()
    body = {"metadata": {"name": "a", "namespace": "kube-system"}, **POD}
    await api.refused("BadRequest", "POST", PODS, body)
    assert (await api.pod("a"))["metadata"]["namespace"] == "default"
    assert "namespace" not in (await api.node("n1"))["metadata"]


async def test_an_empty_namespace_is_filled_in() -> None:
    pod = await Api()("POST", PODS, {"metadata": {"name": "a", "namespace": ""}, **POD})
    assert pod["metadata"]["namespace"] == "default"


# Pools.

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_what_pools_are_is_not_for_others_to_say() -> None:
    """A pool without addresses would be an error of the API itself."""
    api, wide = Api(), pools.definition()
    wide["spec"]["versions"][0]["schema"] = {
        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    }
    assert "spec.versions" in await api.refused("Invalid", "POST", DEFINITIONS, wide)
    await api("POST", DEFINITIONS, pools.definition())
    own = f"{DEFINITIONS}/{pools.POOLS}"
    assert "spec.versions" in await api.refused("Invalid", "PATCH", own, {"spec": {"versions": wide["spec"]["versions"]}})
    labelled = await api("PATCH", own, {"metadata": {"labels": {"a": "b"}}})
    assert labelled["spec"]["versions"] == pools.definition()["spec"]["versions"]
    await api.refused("Invalid", "POST", "/apis/podplane.dev/v1/loadbalancerpools", {"metadata": {"name": "p"}, "spec": {}})


async def test_a_definition_of_pools_that_is_of_another_version_stays_until_it_changes() -> None:
    api, old = Api(), pools.definition()
    old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "As it was."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "definition", lambda: old)
        await api("POST", DEFINITIONS, old)
    own = f"{DEFINITIONS}/{pools.POOLS}"
    await api("PATCH", own, {"metadata": {"labels": {"a": "b"}}})
    await api("PATCH", own, {"spec": {"versions": pools.definition()["spec"]["versions"]}})
    await api.refused("Invalid", "PATCH", own, {"spec": {"versions": old["spec"]["versions"]}})
