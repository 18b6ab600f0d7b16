"""Patches: JSON, merge and strategic merge, as the RFCs and Kubernetes have them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.decoding import MAX_DEPTH
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.patches import JSON_PATCH, MAX_OPERATIONS, STRATEGIC, merge, patched
from podplane.apiserver.problems import Problem
from podplane.kubeapi.messages import MERGE_PATCH, Request

Object = dict[str, Any]
POD = next(row for row in RESOURCES if row.id == "pods")
SERVICE = next(row for row in RESOURCES if row.id == "services")


def apply(kind: str, old: Any, patch: Any, row: Any = POD) -> Any:
    data = patch if isinstance(patch, bytes) else json.dumps(patch).encode()
    before = json.dumps(old)
    new = patched(row, old, Request("PATCH", "/", {}, {"content-type": kind}, data))
    assert json.dumps(old) == before, "the former object stays as it was"
    return new


def pod(*containers: Object, **spec: Any) -> Object:
    return {"spec": {"containers": list(containers), **spec}}


A, B, C = ({"name": name, "image": name} for name in "abc")


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        (pod(A, B), pod({"name": "b", "image": "z"}), pod(A, {"name": "b", "image": "z"})),
        (pod(A), pod(B), pod(B, A)),
        (pod(A, B), pod({"name": "a", "$patch": "delete"}), pod(B)),
        (pod(A, B), {"spec": {"containers": [C, {"$patch": "replace"}]}}, pod(C)),
        (pod(A, B), {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}, pod(B, A)),
        (pod(A, C), {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [B]}}, pod(B, A, C)),
        (pod(A, hostname="h"), {"spec": {"$retainKeys": ["containers"]}}, pod(A)),
        (pod(A, hostname="h"), {"spec": {"hostname": None}}, pod(A)),
        (pod(A), {"spec": {"nodeSelector": {"x": "y"}}}, pod(A, nodeSelector={"x": "y"})),
        (pod(A, nodeSelector={"a": "b", "c": "d"}), {"spec": {"nodeSelector": {"a": None}}}, pod(A, nodeSelector={"c": "d"})),
        (
            pod(A, nodeSelector={"a": "b"}),
            {"spec": {"nodeSelector": {"$patch": "replace", "c": "d"}}},
            pod(A, nodeSelector={"c": "d"}),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
            {"metadata": {"finalizers": ["a", "b", "c"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        (pod({**A, "args": ["1", "2"]}), pod({"name": "a", "args": ["3"]}), pod({**A, "args": ["3"]})),
        (
            pod({**A, "env": [{"name": "X", "value": "1"}]}),
            pod({"name": "a", "env": [{"name": "Y", "value": "2"}]}),
            pod({**A, "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}),
        ),
    ],
)
def test_strategic_merge(old: Object, patch: Object, new: Object) -> None:
    assert apply(STRATEGIC, old, patch) == new


def test_ports_of_a_service_are_told_apart_by_port() -> None:
    old = {"spec": {"ports": [{"port": 80, "name": "a"}]}}
    new = apply(STRATEGIC, old, {"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}}, SERVICE)
    assert new["spec"]["ports"] == [{"port": 80, "name": "a", "targetPort": 8080}, {"port": 81}]


@pytest.mark.parametrize("patch", [pod({"image": "no name"}), {"spec": {"containers": ["a"]}}, {"spec": {"$retainKeys": 5}}])
def test_strategic_patches_that_make_no_sense(patch: Object) -> None:
    with pytest.raises(Problem) as refused:
        apply(STRATEGIC, pod(A), patch)
    assert refused.value.code == 400


def test_json_patch() -> None:
    old = {"metadata": {"labels": {"a/b": "1", "c": "2"}}}
    operations = [
        {"op": "test", "path": "/metadata/labels/c", "value": "2"},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "3"},
        {"op": "move", "from": "/metadata/labels/c", "path": "/metadata/labels/d"},
        {"op": "add", "path": "/metadata/finalizers", "value": []},
        {"op": "add", "path": "/metadata/finalizers/-", "value": "x"},
    ]
    assert apply(JSON_PATCH, old, operations) == {"metadata": {"labels": {"a/b": "3", "d": "2"}, "finalizers": ["x"]}}


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "test", "path": "/spec", "value": 1}], 422),
        ([{"op": "remove", "path": "/nothing/there"}], 422),
        ([{"op": "add", "path": "/spec/containers/7", "value": 1}], 422),
        ([{"op": "replace", "path": "", "value": 1}], 422),
        ([{"op": "fly", "path": "/spec"}], 400),
        ([{"path": "/spec"}], 400),
        ([1], 400),
        ({"op": "add"}, 400),
        (b"{", 400),
        ([{"op": "test", "path": "", "value": {}}] * (MAX_OPERATIONS + 1), 413),
    ],
)
def test_json_patches_that_make_no_sense(operations: Any, code: int) -> None:
    with pytest.raises(Problem) as refused:
        apply(JSON_PATCH, pod(A), operations)
    assert refused.value.code == code


@pytest.mark.parametrize("op", ["copy", "move"])
@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1000])
def test_json_patches_nest_nothing_deeper_than_a_body_may_be(op: str, levels: int) -> None:
    wrap: list[Object] = [{"op": "add", "path": "/b", "value": {}}, {"op": op, "from": "/a", "path": "/b/x"}]
    wrap.append({"op": "move", "from": "/b", "path": "/a"})
    with pytest.raises(Problem) as refused:
        apply(JSON_PATCH, {"a": {}}, wrap * levels)
    assert refused.value.code == 400
    assert apply(JSON_PATCH, {"a": {}}, wrap * (MAX_DEPTH - 2))


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/apply-patch+yaml", "application/yaml"])
def test_other_types_of_patches_are_not_taken(kind: str) -> None:
    with pytest.raises(Problem) as refused:
        apply(kind, pod(A), {})
    assert refused.value.code == 415


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(objects, objects)
def test_a_merge_patch_twice_is_as_once(old: Object, patch: Object) -> None:
    once = merge(old, patch)
    assert merge(once, patch) == once
    assert apply(MERGE_PATCH, old, patch) == once


@given(objects, objects)
def test_a_merge_patch_says_what_comes_out(old: Object, patch: Object) -> None:
    new = merge(old, patch)
    for key, value in patch.items():
        if value is None:
            assert key not in new
        elif not isinstance(value, dict):
            assert new[key] == value
    assert {key: value for key, value in old.items() if key not in patch} == {k: v for k, v in new.items() if k not in patch}


def test_copies_of_a_json_patch_are_limited_together() -> None:
    doubled = [{"op": "copy", "from": "/spec", "path": f"/spec/k{i}"} for i in range(60)]
    with pytest.raises(Problem, match="more than 3145728 bytes together") as refused:
        apply(JSON_PATCH, pod(), doubled)
    assert refused.value.reason == "Invalid"
    few = [{"op": "copy", "from": "/spec", "path": f"/spec/k{i}"} for i in range(3)]
    assert len(json.dumps(apply(JSON_PATCH, pod(), few)["spec"])) > 7 * len(json.dumps(pod()["spec"]))


@pytest.mark.parametrize("operation", [{"from": "/nothing"}, {}, {"from": "x"}, {"from": 5}])
def test_copies_from_nowhere_are_refused(operation: Object) -> None:
    with pytest.raises(Problem) as refused:
        apply(JSON_PATCH, pod(), [{"op": "copy", "path": "/spec/a", **operation}])
    assert refused.value.reason in ("Invalid", "BadRequest")
