"""Strategic merges give what Kubernetes' own code gives, for objects and patches that were made at random; and its tags are ours."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver import openapi, shapes, strategic
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.registry import Registry
from podplane.apiserver.store import Store

Object = dict[str, Any]
FACTS: list[Object] = json.loads((Path(__file__).parent / "strategic_merges.json").read_text())["cases"]
TAGS: dict[str, Object] = json.loads((Path(__file__).parent / "patch_tags.json").read_text())["types"]
ROWS = {row.id: row for row in RESOURCES}


@pytest.mark.parametrize("fact", FACTS)
def test_merges_are_those_of_apimachinery(fact: Object) -> None:
    old, patch, shape = copy.deepcopy(fact["old"]), copy.deepcopy(fact["patch"]), ROWS[fact["kind"]].shape()
    if fact.get("refused"):
        with pytest.raises(strategic.BadPatch):
            strategic.merged(old, patch, shape)
    else:
        assert strategic.merged(old, patch, shape) == fact["new"]
    assert (old, patch) == (fact["old"], fact["patch"]), "both stay as they were"


def test_the_facts_have_every_directive() -> None:
    for directive in ("$patch", strategic.RETAIN, strategic.DELETE_FROM, strategic.ORDER, "null"):
        kept = [fact for fact in FACTS if directive in json.dumps(fact["patch"]) and not fact.get("refused")]
        assert len(kept) > 5, directive
    assert sum(bool(fact.get("refused")) for fact in FACTS) > 5


def published(schema: Object) -> Object:
    """Strategy and merge key of each field of a schema that has one."""
    found = {}
    for name, field in schema.get("properties", {}).items():
        strategy, key = field.get("x-kubernetes-patch-strategy", ""), field.get("x-kubernetes-patch-merge-key")
        if strategy or key:
            found[name] = {"strategy": strategy} | ({"key": key} if key else {})
    return found


def test_merge_keys_and_strategies_are_those_of_the_go_types() -> None:
    ours = shapes.data()["definitions"]
    common = TAGS.keys() & ours.keys()
    assert len(common) > 250
    assert {name: published(ours[name]) for name in common} == {name: TAGS[name] for name in common}


def test_clients_are_told_the_same_merge_keys() -> None:
    """kubectl apply computes its patch with what OpenAPI v3 says."""
    registry, seen = Registry(Store(":memory:")), set()
    for row in RESOURCES:
        path = f"apis/{row.group_version}" if row.group else "api/v1"
        document = openapi.document(registry, path)
        assert document is not None
        for name, schema in document["components"]["schemas"].items():
            if name in TAGS:
                assert published(schema) == TAGS[name], name
                seen.add(name)
    assert {name for name, tags in TAGS.items() if tags and name in shapes.data()["definitions"]} <= seen


PORTS: list[Object] = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]


def ports(*given: Object, **more: Any) -> Object:
    return {"spec": {"ports": list(given), **more}}


def test_two_ports_of_one_number_are_one_to_a_merge() -> None:
    """The documented trap: `port` alone is the merge key, so the first of that number is changed, and the other is left."""
    shape = ROWS["services"].shape()
    changed = strategic.merged(ports(*PORTS), ports({"port": 53, "protocol": "TCP", "nodePort": 30053}), shape)
    assert changed == ports({**PORTS[0], "protocol": "TCP", "nodePort": 30053}, PORTS[1])


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"image": "no name"}]}},
        {"spec": {"containers": [{"name": {"a": "b"}}]}},
        {"spec": {"containers": ["a"]}},
        {"spec": {"containers": [None]}},
        {"spec": {"$retainKeys": 5}},
        {"spec": {"$setElementOrder/colors": ["red"], "colors": ["red"]}},
        {"spec": {"$setElementOrder/containers": {"name": "a"}}},
        {"spec": {"$setElementOrder/tolerations": [{"key": "a"}]}},
        {"spec": {"$patch": "jump"}},
        {"spec": {"containers": [{"name": "a", "$patch": "merge"}]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
        {"spec": {"imagePullSecrets": [["a"]]}},
        {"metadata": {"$deleteFromPrimitiveList/ownerReferences": [{"uid": "a"}]}},
    ],
)
def test_patches_that_make_no_sense_are_refused(patch: Object) -> None:
    old = {
        "metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "a"}]},
        "spec": {"containers": [{"name": "a"}], "tolerations": [{"key": "a"}], "imagePullSecrets": []},
    }
    with pytest.raises(strategic.BadPatch):
        strategic.merged(old, patch, ROWS["pods"].shape())


SCALARS = (
    st.none() | st.booleans() | st.integers(-1, 1) | st.floats(0, 1) | st.sampled_from(["a", "b", "delete", "replace", "merge"])
)
NAMES = st.sampled_from(
    [
        *(
            "metadata",
            "spec",
            "finalizers",
            "ownerReferences",
            "uid",
            "containers",
            "name",
            "ports",
            "containerPort",
            "env",
            "volumes",
        ),
        *(
            "labels",
            "nodeSelector",
            "tolerations",
            "status",
            "conditions",
            "type",
            "$patch",
            "$retainKeys",
            "$setElementOrder/ports",
        ),
        *(
            "$setElementOrder/containers",
            "$setElementOrder/finalizers",
            "$deleteFromPrimitiveList/finalizers",
            "$setElementOrder/",
        ),
        *("$deleteFromPrimitiveList/containers", "$setElementOrder/nothing", "nothing"),
    ]
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
OLD: Object = {
    "metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "a"}], "labels": {"a": "b"}},
    "spec": {
        "containers": [{"name": "a", "ports": [{"containerPort": 1}]}, {"name": "b"}],
        "volumes": [{"name": "a", "emptyDir": {}}],
        "tolerations": [{"key": "a"}],
        "nodeSelector": {"a": "b"},
    },
}


def part(**inner: Any) -> st.SearchStrategy[Object]:
    """An object with some of these fields."""
    return st.fixed_dictionaries({}, optional=inner)


PATCHES = part(
    metadata=st.dictionaries(NAMES, ANYTHING, max_size=4) | ANYTHING,
    spec=st.dictionaries(NAMES, ANYTHING | st.lists(st.dictionaries(NAMES, ANYTHING, max_size=4), max_size=3), max_size=4),
    status=ANYTHING,
)


@settings(max_examples=500)
@given(PATCHES)
def test_any_patch_is_applied_or_refused(patch: Object) -> None:
    old, given_ = copy.deepcopy(OLD), copy.deepcopy(patch)
    with contextlib.suppress(strategic.BadPatch):
        assert isinstance(strategic.merged(old, patch, ROWS["pods"].shape()), dict)
    assert (old, repr(patch)) == (OLD, repr(given_))


@given(PATCHES)
def test_a_patch_without_anything_changes_nothing(patch: Object) -> None:
    once = copy.deepcopy(OLD)
    assert strategic.merged(once, {}, ROWS["pods"].shape()) == OLD
    with contextlib.suppress(strategic.BadPatch):
        again = strategic.merged(once, patch, ROWS["pods"].shape())
        assert strategic.merged(again, {}, ROWS["pods"].shape()) == again


def test_one_and_true_are_two_values() -> None:
    old = {"metadata": {"finalizers": [1]}}
    with pytest.raises(strategic.BadPatch):
        strategic.merged(old, {"metadata": {"finalizers": [True]}}, ROWS["pods"].shape())
