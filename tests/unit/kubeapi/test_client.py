"""Answers as exceptions, verbs over any handler, and a cache that outlives what it can't read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound, checked
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.model.pod import Pod
from tests.unit.apiserver.test_server import PODS, Api


@pytest.mark.parametrize(
    ("reason", "code", "kind"),
    [
        ("NotFound", 404, NotFound),
        ("AlreadyExists", 409, AlreadyExists),
        ("Conflict", 409, Conflict),
        ("Expired", 410, Gone),
        ("Gone", 410, Gone),
        ("Forbidden", 403, ApiError),
        ("NeverHeardOf", 418, ApiError),
    ],
)
def test_a_status_is_the_exception_of_its_reason(reason: str, code: int, kind: type[ApiError]) -> None:
    with pytest.raises(ApiError, match="words") as refused:
        checked(Response(code, json.dumps({"kind": "Status", "reason": reason, "message": "words", "code": 1}).encode()))
    assert (type(refused.value), refused.value.code, refused.value.reason) == (kind, code, reason)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the API answered 502"),
        (b"  Bad Gateway\n", "Bad Gateway"),
        (b"[1]", r"\[1\]"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"{}", "the API answered 502"),
    ],
)
def test_an_answer_that_is_no_status_is_an_exception_too(body: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as refused:
        checked(Response(502, body))
    assert refused.value.code == 502


def test_a_good_answer_is_its_body() -> None:
    assert checked(Response(201, b"x")) == b"x"


async def test_an_answer_of_the_wrong_form_is_an_api_error() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    async def stream(_: Request) -> Answer:
        return Stream(nothing())

    async def whole(_: Request) -> Answer:
        return Response(200, b"{}")

    with pytest.raises(ApiError, match="answered with a stream"):
        await Client(stream, "t").list("pods")
    with pytest.raises(ApiError, match="not answered with a stream"):
        await Client(whole, "t").watch("pods", "1")


async def test_a_cache_goes_on_after_an_object_that_it_can_not_read() -> None:
    def event(name: str, **spec: Any) -> bytes:
        meta = {"name": name, "uid": name, "resourceVersion": "7"}
        return json.dumps({"type": "ADDED", "object": {"metadata": meta, "spec": spec}}).encode() + b"\n"

    watches = [event("bad", hostNetwork="yes") + event("good")]

    async def handle(request: Request) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield watches.pop() if watches else b""
            await asyncio.sleep(3600)

        return Stream(chunks()) if request.flag("watch") else Response(200, b'{"items":[],"metadata":{"resourceVersion":"1"}}')

    informer = Informer(Client(handle, "t"), "pods", Pod)
    await informer.sync()
    task = asyncio.ensure_future(informer.run())
    await asyncio.wait([task], timeout=0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(informer.objects) == {"good"}


async def test_a_cache_is_what_a_list_is_after_any_restart_of_the_watch() -> None:
    api = Api()
    informer = Informer(Client(api.server.handle, "secret"), "pods", Pod)
    for i in range(3):
        await api.pod(f"p{i}")
        await informer.sync()
    await api("DELETE", f"{PODS}/p1", {"gracePeriodSeconds": 0})
    await informer.sync()
    assert sorted(informer.objects) == ["default/p0", "default/p2"]


GROUPS = {"kind": "APIGroupList", "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1"}]}]}
UNKNOWN = Response(404, b"404 page not found\n")
POLICIES = "clusternetworkpolicies.policy.networking.k8s.io"


async def test_what_the_api_does_not_serve_is_not_found() -> None:
    """kube-apiserver answers for a kind of a CustomResourceDefinition that is not there in plain text."""
    paths = []

    async def handle(request: Request) -> Answer:
        paths.append(request.path)
        return Response(200, json.dumps(GROUPS).encode()) if request.path == "/apis" else UNKNOWN

    client = Client(handle, "t")
    with pytest.raises(NotFound, match=f"the API does not serve {POLICIES}"):
        await client.list(POLICIES)
    assert paths == ["/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies", "/apis"]
    with pytest.raises(NotFound, match="does not serve"):
        await client.get("network-attachment-definitions.k8s.cni.cncf.io", "default", "one")


@pytest.mark.parametrize("resource", ["nodes", "deployments.apps"])
async def test_a_page_that_is_not_found_though_the_api_serves_it_is_no_missing_kind(resource: str) -> None:
    async def handle(request: Request) -> Answer:
        return Response(200, json.dumps(GROUPS).encode()) if request.path == "/apis" else UNKNOWN

    with pytest.raises(ApiError) as raised:
        await Client(handle, "t").list(resource)
    assert not isinstance(raised.value, NotFound)


@pytest.mark.parametrize("discovery", [UNKNOWN, Response(200, b"<html>"), Response(200, b'{"kind": "Status"}')])
async def test_who_answers_nothing_but_that_is_not_the_api(discovery: Response) -> None:
    """A server on the way that knows no path: were it believed, policies of the cluster would be forgotten."""

    async def handle(request: Request) -> Answer:
        return discovery if request.path == "/apis" else UNKNOWN

    with pytest.raises(ApiError) as raised:
        await Client(handle, "t").list(POLICIES)
    assert not isinstance(raised.value, NotFound)
