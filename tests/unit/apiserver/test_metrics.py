"""/metrics of the API server: kube-apiserver's names and labels, who may read them, and that figures are those of what happened."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from podplane.apiserver.identity import Attributes
from podplane.apiserver.metrics import labels_of
from podplane.apiserver.registry import Registry
from podplane.apiserver.store import Store
from podplane.kubeapi.messages import Request, Response, Stream
from tests.unit.apiserver.test_server import Api

MAPS = "/api/v1/namespaces/default/configmaps"
Samples = dict[str, list[tuple[dict[str, str], float]]]


async def read(api: Api, path: str = "/metrics") -> Samples:
    """The samples by name."""
    answer = await api.answer("GET", path)
    assert isinstance(answer, Response)
    assert (answer.status, answer.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def figure(samples: Samples, name: str, **labels: str) -> float:
    """The one figure of these labels."""
    (found,) = [value for own, value in samples[name] if labels.items() <= own.items()]
    return found


async def test_requests_are_counted_by_what_they_asked_for() -> None:
    api = Api()
    await api("POST", MAPS, {"metadata": {"name": "a"}})
    await api("POST", MAPS, {"metadata": {"name": "b"}}, dryRun="All")
    await api("GET", f"{MAPS}/a")
    await api("GET", MAPS)
    await api("GET", "/api/v1/configmaps")
    await api("PATCH", f"{MAPS}/a", {"data": {"a": "b"}})
    await api.refused("NotFound", "GET", f"{MAPS}/b")
    await api("DELETE", MAPS)
    await api.answer("GET", "/readyz", token="")
    await api.answer("GET", "/no/such/path")
    found = await read(api)
    total = "apiserver_request_total"
    own = {"resource": "configmaps", "version": "v1", "group": "", "subresource": "", "component": "apiserver"}
    assert figure(found, total, **own, verb="POST", scope="resource", code="201", dry_run="") == 1
    assert figure(found, total, **own, verb="POST", scope="resource", code="201", dry_run="All") == 1
    assert figure(found, total, **own, verb="GET", scope="resource", code="200") == 1
    assert figure(found, total, **own, verb="GET", scope="resource", code="404") == 1
    assert figure(found, total, **own, verb="LIST", scope="namespace", code="200") == 1
    assert figure(found, total, **own, verb="LIST", scope="cluster", code="200") == 1
    assert figure(found, total, **own, verb="PATCH", scope="resource", code="200") == 1
    assert figure(found, total, **own, verb="DELETECOLLECTION", scope="namespace", code="200") == 1
    assert figure(found, total, verb="GET", subresource="/readyz", code="200", scope="") == 1
    assert figure(found, total, verb="GET", resource="", subresource="", code="404") == 1
    assert figure(found, "apiserver_request_duration_seconds_count", **own, verb="GET", scope="resource") == 2
    assert figure(found, "apiserver_request_duration_seconds_bucket", **own, verb="LIST", scope="cluster", le="+Inf") == 1
    assert figure(await read(api), total, subresource="/metrics") == 1, "it counts itself, the next time"


async def test_what_is_there_is_counted() -> None:
    api = Api()
    for name in ("a", "b"):
        await api("POST", MAPS, {"metadata": {"name": name}})
    headers = {"authorization": "Bearer secret"}
    watch = await api.server.handle(Request("GET", MAPS, {"watch": ["1"], "resourceVersion": ["1"]}, headers))
    assert isinstance(watch, Stream)
    await anext(watch.chunks)
    found = await read(api)
    assert figure(found, "apiserver_resource_objects", group="", resource="configmaps") == 2
    assert figure(found, "apiserver_storage_objects", resource="deployments.apps") == 0
    own = {"verb": "WATCH", "group": "", "version": "v1", "resource": "configmaps", "scope": "namespace"}
    assert figure(found, "apiserver_longrunning_requests", **own) == 1
    assert figure(found, "apiserver_request_total", **own, code="200") == 1
    assert not any(labels["verb"] == "WATCH" for labels, _ in found["apiserver_request_duration_seconds_count"])
    assert figure(found, "apiserver_current_inflight_requests", request_kind="readOnly") == 1
    assert figure(found, "kubernetes_build_info", minor="36") == 1
    assert found["process_resident_memory_bytes"][0][1] > 0
    await watch.chunks.aclose()  # type: ignore[attr-defined]
    assert "apiserver_longrunning_requests" not in await read(api)


async def test_they_are_for_those_who_are_known() -> None:
    api = Api()
    assert (await api.answer("GET", "/metrics", token="")).status == 401
    api.server._authorize = lambda user, what: "no" if what.path == "/metrics" else ""
    assert (await api.answer("GET", "/metrics")).status == 403


async def test_only_reading_is_served() -> None:
    api = Api()
    await read(api, "/metrics/")
    await api.refused("NotFound", "POST", "/metrics", {})
    assert "/metrics" in (await api("GET", "/"))["paths"]


async def test_a_request_that_ends_early_is_not_in_flight() -> None:
    api = Api()

    async def never(*_: object) -> object:
        await asyncio.sleep(3600)
        raise AssertionError

    api.server._answer = never  # type: ignore[assignment,method-assign]
    task = asyncio.create_task(api.answer("POST", MAPS, {}))
    await asyncio.sleep(0)
    assert api.server._figures.inflight == {"readOnly": 0, "mutating": 1}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert api.server._figures.inflight == {"readOnly": 0, "mutating": 0}


@pytest.mark.parametrize(
    ("what", "verb", "subresource"),
    [
        (Attributes("create", "", "v1", "pods", "exec", "default", "a"), "CONNECT", "exec"),
        (Attributes("get", "", "v1", "nodes", "proxy", "", "a"), "CONNECT", "proxy"),
        (Attributes("update", "", "v1", "pods", "status", "default", "a"), "PUT", "status"),
        (Attributes("get", path="/healthz/ping"), "GET", "/healthz"),
        (Attributes("get", path="/healthzz"), "GET", ""),
        (Attributes("get", path="/"), "GET", ""),
        (Attributes("get", "", "v1", "pods", "anything", "default", "a"), "GET", ""),
        (Attributes("create", "", "v1", "configmaps", "exec", "default", "a"), "POST", ""),
        (Attributes("update", "", "v1", "configmaps", "status", "default", "a"), "PUT", ""),
        (Attributes("brew", "", "v1", "pods", "", "default", "a"), "other", ""),
        (Attributes("brew", path="/"), "other", ""),
    ],
)
def test_labels(what: Attributes, verb: str, subresource: str) -> None:
    labels = labels_of(Request(what.verb.upper(), what.path or "/api/v1/x"), what, Registry(Store(":memory:")))
    assert (labels[0], labels[5]) == (verb, subresource)


async def test_what_nobody_serves_adds_no_figures() -> None:
    api = Api()

    async def ask(number: int) -> None:
        text = f"anything{number}"
        for path in (f"pods/a/{text}", f"configmaps/a/{text}", text, f"{text}/a", f"pods/{text}/exec", f"pods/a/exec/{text}"):
            await api.answer("GET", f"/api/v1/namespaces/default/{path}")
        for path in (f"/apis/{text}/v1/pods", f"/apis/apps/{text}/deployments", f"/{text}", f"/healthz/{text}"):
            await api.answer("GET", path)
        await api.answer(text, f"{MAPS}/a")
        await api.answer(text, f"/{text}")
        await api.answer("GET", MAPS, fieldSelector=text, labelSelector=text, dryRun=text)

    figures = api.server._figures
    await ask(0)
    before = set(figures.requests), set(figures.durations)
    for number in range(1, 20):
        await ask(number)
    assert (set(figures.requests), set(figures.durations)) == before
    assert not any("anything" in label for labels in figures.requests for label in labels)


def test_the_library_is_not_imported_before_somebody_asks() -> None:
    code = "import sys, podplane.apiserver.server; print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
