"""The indices of the view: they answer as a walk over everything would, whatever was written, and a change of one pod touches no others."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.controllers import stored
from podplane.apiserver.controllers.endpoint_slices import of_pod
from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.store import Store
from podplane.controllers.objects import Key, controller_of, matches
from tests.unit.apiserver.controllers.cluster import Cluster

Object = dict[str, Any]
BY_ID = {row.id: row for row in RESOURCES}
SERVICES, SETS, JOBS = "services", "replicasets.apps", "jobs.batch"

labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)
expressions = st.lists(st.builds(lambda key: {"key": key, "operator": "Exists"}, st.sampled_from("abc")), max_size=1)
service = st.builds(lambda selector: {"selector": selector} if selector else {}, labels)
replica_set = st.builds(
    lambda m, e: {"selector": {"matchLabels": m} if not e else {"matchLabels": m, "matchExpressions": e}}, labels, expressions
)
owners = st.builds(
    lambda name, uid: {"kind": "Job", "name": name, "uid": uid, "controller": True},
    st.sampled_from("xy"),
    st.sampled_from("uv"),
)
pod = st.builds(
    lambda owners, its, phase, node: {"spec": {"nodeName": node}, "owners": owners, "labels": its, "status": {"phase": phase}},
    st.lists(owners, max_size=1),
    labels,
    st.sampled_from(["Pending", "Running", "Failed"]),
    st.sampled_from(["", "node1"]),
)
key = st.tuples(st.sampled_from(["n", "m"]), st.sampled_from("abcd"))
steps = st.lists(
    st.one_of(
        st.tuples(st.just(SERVICES), key, st.none() | service.map(lambda spec: {"spec": spec})),
        st.tuples(st.just(SETS), key, st.none() | replica_set.map(lambda spec: {"spec": spec})),
        st.tuples(st.just("pods"), key, st.none() | pod),
    ),
    max_size=15,
)


@given(steps, labels)
def test_indices_answer_as_a_walk_over_everything(writes: list[tuple[str, Key, Object | None]], asked: dict[str, str]) -> None:
    store = Store(":memory:")
    view = StoredView(store, lambda: datetime.datetime.now(datetime.UTC))
    for resource, at, body in writes:
        write(store, view, resource, at, body)
    for namespace in ("n", "m"):
        for resource in (SERVICES, SETS):
            walked = [o for o in view.all(resource, namespace) if chooses(resource, o, asked)]
            assert [o for o in view.may_select(resource, namespace, asked) if chooses(resource, o, asked)] == walked
        selector = {"matchLabels": asked}
        free = [pod for pod in view.all("pods", namespace) if controller_of(pod) is None]
        assert view.unowned(namespace, selector) == [pod for pod in free if matches(selector, pod["metadata"]["labels"])]
        assert view.usage("node1").requested == used_of(view.all("pods"))
        for name in "xy":
            its = [pod for pod in view.all("pods", namespace) if (controller_of(pod) or {}).get("name") == name]
            assert view.controlled_by_name("pods", "Job", (namespace, name)) == its
            for uid in "uv":
                owner = {"kind": "Job", "metadata": {"namespace": namespace, "name": name, "uid": uid}}
                assert view.controlled("pods", owner) == [pod for pod in its if (controller_of(pod) or {})["uid"] == uid]
    for resource, at in {(resource, at) for resource, at, _ in writes}:
        write(store, view, resource, at, None)
    assert (view._selecting, view._controlled) == ({}, {})


def used_of(pods: list[Object]) -> dict[str, int]:
    """What pods use of their only node, by walking them."""
    used = [pod for pod in pods if pod["spec"]["nodeName"] and pod["status"]["phase"] != "Failed"]
    return {"pods": 1000 * len(used)} if used else {}


def write(store: Store, view: StoredView, resource: str, at: Key, body: Object | None) -> None:
    """Store or remove an object, and tell the view."""
    before = store.get(resource, at)
    old, new = before.object if before else None, None
    if body is not None:
        metadata = {"namespace": at[0], "name": at[1], "uid": "/".join(at), "ownerReferences": body.get("owners", [])}
        metadata["labels"] = body.get("labels", {})
        spec = {"type": "ClusterIP", "containers": [], **body["spec"]}
        new = store.put(resource, at, {"metadata": metadata, "spec": spec, "status": body.get("status", {})}).object
    elif before is not None:
        store.remove(resource, at)
    view.observe(BY_ID[resource], old, new)


def chooses(resource: str, object_: Object, asked: dict[str, str]) -> bool:
    """Does its selector choose a pod with these labels?"""
    selector = object_["spec"].get("selector")
    if resource == SERVICES:
        return bool(selector) and selector.items() <= asked.items()
    return matches(selector, asked)


async def test_a_pod_is_compared_with_the_services_that_share_a_label_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    for number in range(30):
        spec = {"clusterIP": "None", "selector": {"app": f"a{number}"}, "ports": [{"port": 80}]}
        await cluster("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": f"s{number}"}, "spec": spec})
    touched: list[Key] = []
    these = StoredView._these

    def counted(view: StoredView, resource: str, keys: Any) -> list[Object]:
        touched.extend(keys)
        return these(view, resource, keys)

    monkeypatch.setattr(StoredView, "_these", counted)
    pod = {"metadata": {"namespace": "default", "name": "p", "labels": {"app": "a7", "tier": "x"}}}
    assert list(of_pod(cluster.view, pod)) == [("default", "s7")]
    assert touched == [("default", "s7")]


def test_a_selector_without_labels_is_found_by_every_pod() -> None:
    assert stored.indexed_label(SETS, {"spec": {"selector": {"matchExpressions": []}}}) == stored.ANY_LABELS
    assert stored.indexed_label(SERVICES, {"spec": {}}) is None
    assert stored.indexed_label("configmaps", {"data": {}}) is None


async def test_a_write_of_conditions_touches_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await Cluster().begin()
    await cluster.pod("p")
    path = "/api/v1/namespaces/default/pods/p"
    touched: list[str] = []
    index = StoredView._index
    monkeypatch.setattr(
        StoredView, "_index", lambda view, resource, *a, **b: (touched.append(resource), index(view, resource, *a, **b))
    )
    conditions = [{"type": "example.org/a", "status": "True"}]
    await cluster("PATCH", f"{path}/status", {"status": {"conditions": conditions}})
    assert touched == []
    for body in ({"status": {"phase": "Failed"}}, {"status": {"phase": "Running"}}):
        await cluster("PATCH", f"{path}/status", body)
    await cluster("PATCH", path, {"metadata": {"labels": {"a": "b"}}})
    assert touched == ["pods"] * 6
