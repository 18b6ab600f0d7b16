"""Defaults of pods that hang on their containers; all others are compared with Kubernetes' own in test_reference."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podplane.apiserver.kinds.pods import complete_pod, pull_policy
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]


def container(name: str, requests: Object | None = None, limits: Object | None = None, **more: Any) -> Object:
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {"name": name, "image": "i", "resources": resources, **more}


def pod(*containers: Object, init: tuple[Object, ...] = (), **spec: Any) -> Object:
    return {"metadata": {"name": "x"}, "spec": {"containers": list(containers), "initContainers": list(init), **spec}}


def test_what_is_limited_is_requested() -> None:
    made = pod(container("a", {"cpu": "1"}, {"cpu": "2", "memory": "1Gi"}), init=(container("b", limits={"cpu": "3"}),))
    complete_pod(made)
    assert made["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert made["spec"]["initContainers"][0]["resources"]["requests"] == {"cpu": "3"}


@pytest.mark.parametrize(
    ("containers", "init", "own", "completed"),
    [
        ([{}], [], {"limits": {"cpu": "2"}}, {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}),
        (
            [{"cpu": "300m"}, {"cpu": "200m"}],
            [],
            {"limits": {"cpu": "2"}},
            {"limits": {"cpu": "2"}, "requests": {"cpu": "500m"}},
        ),
        ([{"cpu": "1"}], [{"cpu": "3"}], {"limits": {"cpu": "4"}}, {"limits": {"cpu": "4"}, "requests": {"cpu": "3"}}),
        (
            [{"memory": "512Mi"}, {"memory": "512Mi"}],
            [],
            {"limits": {"memory": "2Gi"}, "requests": {"cpu": "1"}},
            {"limits": {"memory": "2Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
        ),
        ([{"cpu": "1"}], [], {"requests": {"cpu": "2"}}, {"requests": {"cpu": "2"}}),
        ([{"cpu": "1"}], [], {}, {}),
    ],
)
def test_requests_of_a_pod_as_a_whole(containers: list[Object], init: list[Object], own: Object, completed: Object) -> None:
    made = pod(
        *(container(f"c{i}", requests) for i, requests in enumerate(containers)),
        init=tuple(container(f"i{i}", requests) for i, requests in enumerate(init)),
        resources=own,
    )
    complete_pod(made)
    assert made["spec"]["resources"] == completed


def test_huge_pages_of_containers_limit_the_pod() -> None:
    huge = {"hugepages-2Mi": "4Mi"}
    made = pod(container("a", huge, huge), container("b", huge, huge), resources={"requests": {"cpu": "1"}})
    complete_pod(made)
    assert made["spec"]["resources"] == {
        "limits": {"hugepages-2Mi": "8Mi"},
        "requests": {"cpu": "1", "hugepages-2Mi": "8Mi"},
    }


async def test_a_pod_is_completed_and_a_template_is_not() -> None:
    api = Api()
    spec = pod(container("a", limits={"cpu": "1"}), terminationGracePeriodSeconds=-5, volumes=[{"name": "v"}])["spec"]
    made = await api("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "x"}, "spec": spec})
    own = made["spec"]
    assert (own["enableServiceLinks"], own["terminationGracePeriodSeconds"], own["volumes"][0]) == (
        True,
        1,
        {"name": "v", "emptyDir": {}},
    )
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {**spec, "terminationGracePeriodSeconds": 5}}
    body = {"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    replica_set = await api("POST", "/apis/apps/v1/namespaces/default/replicasets", body)
    kept = replica_set["spec"]["template"]["spec"]
    assert "enableServiceLinks" not in kept
    assert kept["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert "labels" not in replica_set["metadata"]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        *(("nginx", "Always"), ("nginx:latest", "Always"), ("host:5000/nginx", "Always"), ("localhost/a/b", "Always")),
        *(("nginx:1.2", "IfNotPresent"), ("host:5000/nginx:1", "IfNotPresent"), (f"nginx@sha256:{'0' * 64}", "IfNotPresent")),
        *(("", "IfNotPresent"), ("No/Such", "IfNotPresent"), ("a b", "IfNotPresent"), ("nginx:latest:latest", "IfNotPresent")),
    ],
)
def test_pull_policies(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


async def test_what_was_stored_before_a_default_was_known_can_be_changed() -> None:
    api = Api()
    made = await api("POST", "/api/v1/namespaces/default/pods", pod(container("a", limits={"cpu": "0.5"})))
    old = json.loads(json.dumps(made))
    del old["spec"]["enableServiceLinks"], old["spec"]["containers"][0]["resources"]["requests"]
    old["spec"]["containers"][0]["resources"]["limits"] = {"cpu": "0.50"}
    api.store.put("pods", ("default", "x"), old)
    changed = await api("PATCH", "/api/v1/namespaces/default/pods/x", {"metadata": {"labels": {"a": "b"}}})
    assert changed["spec"] == made["spec"]
    message = await api.refused(
        "Invalid", "PATCH", "/api/v1/namespaces/default/pods/x", {"spec": {"enableServiceLinks": False}}
    )
    assert "pod updates may not change fields other than" in message


async def test_templates_of_a_daemon_set_are_counted() -> None:
    api, path = Api(), "/apis/apps/v1/namespaces/default/daemonsets"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container("a")]}}
    body = {"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    counted = [await api("POST", path, body)]
    changes: tuple[Object, ...] = ({"minReadySeconds": 1}, {"template": {"spec": {"terminationGracePeriodSeconds": 7}}})
    bodies = [{"spec": change, "metadata": {"annotations": {GENERATION: "x"}}} for change in changes]
    counted += [await api("PATCH", f"{path}/x", change) for change in bodies]
    assert [one["metadata"]["annotations"][GENERATION] for one in counted] == ["1", "1", "2"]


GENERATION = "deprecated.daemonset.template.generation"
