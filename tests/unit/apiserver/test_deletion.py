"""Deletions: finalizers hold, dependents follow or are let go of, and whatever happens nothing is left that belongs to nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.apiserver.test_kinds import CRD
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"


def owner(found: Object, *, blocks: bool = False) -> Object:
    """A reference to an owner."""
    metadata = found["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": blocks,
    }


async def make(api: Api, name: str, *owners: Object, finalizers: tuple[str, ...] = (), blocks: bool = False) -> Object:
    """A ConfigMap that belongs to these."""
    metadata = {"name": name, "ownerReferences": [owner(one, blocks=blocks) for one in owners], "finalizers": list(finalizers)}
    return await api("POST", MAPS, {"metadata": metadata})


async def test_a_finalizer_holds_until_it_is_taken_away() -> None:
    api = Api()
    await make(api, "a", finalizers=("example.org/hold",))
    marked = await api("DELETE", f"{MAPS}/a")
    assert marked["metadata"]["deletionTimestamp"]
    assert (await api("DELETE", f"{MAPS}/a"))["metadata"] == marked["metadata"]
    await api.refused("Invalid", "PATCH", f"{MAPS}/a", {"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}})
    await api("PATCH", f"{MAPS}/a", {"data": {"still": "changes"}})
    await api("PATCH", f"{MAPS}/a", {"metadata": {"finalizers": None}})
    await api.refused("NotFound", "GET", f"{MAPS}/a")


async def test_dependents_go_with_their_last_owner() -> None:
    api = Api()
    one, two = await make(api, "one"), await make(api, "two")
    await make(api, "both", one, two)
    await make(api, "grandchild", await make(api, "child", one))
    await api("DELETE", f"{MAPS}/one")
    assert await api.names(MAPS) == ["both", "two"]
    left = (await api("GET", f"{MAPS}/both"))["metadata"]["ownerReferences"]
    assert [reference["name"] for reference in left] == ["two"]
    await api("DELETE", f"{MAPS}/two")
    assert await api.names(MAPS) == []


async def test_orphans_are_let_go_of() -> None:
    api = Api()
    await make(api, "child", await make(api, "parent"))
    await api("DELETE", f"{MAPS}/parent", {"propagationPolicy": "Orphan"})
    assert await api.names(MAPS) == ["child"]
    assert "ownerReferences" not in (await api("GET", f"{MAPS}/child"))["metadata"]


async def test_in_the_foreground_the_owner_waits_for_those_that_block_it() -> None:
    api = Api()
    parent = await make(api, "parent")
    await make(api, "child", parent, finalizers=("example.org/hold",), blocks=True)
    waiting = await api("DELETE", f"{MAPS}/parent", {"propagationPolicy": "Foreground"})
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert (await api("GET", f"{MAPS}/child"))["metadata"]["deletionTimestamp"]
    await api("PATCH", f"{MAPS}/child", {"metadata": {"finalizers": []}})
    assert await api.names(MAPS) == []


async def test_a_collection_is_deleted_by_selector() -> None:
    api = Api()
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2"}), ("c", {})):
        await api("POST", MAPS, {"metadata": {"name": name, "labels": labels}})
    await api("DELETE", MAPS, labelSelector="x=1")
    assert await api.names(MAPS) == ["b", "c"]
    await api("DELETE", MAPS, dryRun="All")
    assert await api.names(MAPS) == ["b", "c"]
    await api("DELETE", MAPS)
    assert await api.names(MAPS) == []


async def test_custom_resources_go_before_their_definition() -> None:
    api, path = Api(), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await api("POST", path, {"metadata": {"name": "things.example.org"}, "spec": CRD})
    things = "/apis/example.org/v1/namespaces/default/things"
    await api("POST", things, {"metadata": {"name": "t", "finalizers": ["example.org/hold"]}})
    await api("DELETE", f"{path}/things.example.org")
    assert (await api("GET", f"{path}/things.example.org"))["metadata"]["deletionTimestamp"]
    await api("PATCH", f"{things}/t", {"metadata": {"finalizers": None}})
    await api.refused("NotFound", "GET", f"{path}/things.example.org")
    await api.refused("NotFound", "GET", things)


@pytest.mark.parametrize(
    ("options", "reason", "why"),
    [
        (
            {"propagationPolicy": "Sideways"},
            "Invalid",
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: '
            '"Foreground", "Background", "Orphan", "nil"',
        ),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            "Invalid",
            "orphanDependents and deletionPropagation cannot be both set",
        ),
        ({"dryRun": ["Some"]}, "Invalid", 'dryRun: Unsupported value: ["Some"]: supported values: "All"'),
        ({"kind": "Pod"}, "BadRequest", "the body of a deletion is DeleteOptions, not Pod"),
        ({"preconditions": {"uid": 5}}, "BadRequest", "DeleteOptions: "),
    ],
)
async def test_options_that_make_no_sense(options: Object, reason: str, why: str) -> None:
    api = Api()
    made = await make(api, "a")
    assert why in await api.refused(reason, "DELETE", f"{MAPS}/a", options)
    assert await api("GET", f"{MAPS}/a") == made


families = st.lists(st.tuples(st.sets(st.integers(0, 9), max_size=3), st.booleans(), st.booleans()), min_size=1, max_size=8)
POLICIES = st.sampled_from(["Background", "Foreground", "Orphan"])


@settings(deadline=None)
@given(families, st.lists(st.tuples(st.integers(0, 7), POLICIES), min_size=1, max_size=3))
def test_whatever_is_deleted_nothing_hangs_in_the_air(
    family: list[tuple[set[int], bool, bool]], deletions: list[tuple[int, str]]
) -> None:
    """Each ConfigMap belongs to some before it, may have a finalizer and may block; then some are deleted.

    Then: whoever is marked is held by something; whoever has owners has one that is there, or is marked; who isn't marked and isn't below
    a deleted one is untouched; and once the finalizers are gone, so are all that were marked.
    """

    async def play() -> None:
        api = Api()
        made: list[Object] = []
        for i, (owners, held, blocks) in enumerate(family):
            parents = [made[n] for n in sorted(owners) if n < i]
            made.append(await make(api, f"o{i}", *parents, finalizers=("example.org/hold",) * held, blocks=blocks))
        below: set[str] = set()
        for number, policy in deletions:
            name = f"o{number % len(family)}"
            below |= {name} | {f"o{i}" for i in _below(family, number % len(family))}
            await api.answer("DELETE", f"{MAPS}/{name}", {"propagationPolicy": policy})
        found = (await api("GET", MAPS))["items"]
        present = {one["metadata"]["uid"] for one in found}
        for one in found:
            metadata = one["metadata"]
            marked = "deletionTimestamp" in metadata
            assert metadata.get("finalizers") or not marked
            owners_of = [reference["uid"] for reference in metadata.get("ownerReferences", ())]
            assert not owners_of or marked or present & set(owners_of)
            if metadata["name"] not in below:
                assert one == made[int(metadata["name"][1:])]
        assert {f"o{i}" for i in range(len(family))} - below <= {one["metadata"]["name"] for one in found}
        for one in found:
            await api.answer("PATCH", f"{MAPS}/{one['metadata']['name']}", {"metadata": {"finalizers": []}})
        rest = (await api("GET", MAPS))["items"]
        assert not [one for one in rest if "deletionTimestamp" in one["metadata"]]

    asyncio.run(play())


def _below(family: list[tuple[set[int], bool, bool]], top: int) -> set[int]:
    """All that belong to it, near or far."""
    found: set[int] = set()
    for i, (owners, _, _) in enumerate(family):
        if i > top and any(n == top or n in found for n in owners if n < i):
            found.add(i)
    return found
