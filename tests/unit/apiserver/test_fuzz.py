"""The REST surface under fire: requests that schemathesis makes of the server's own OpenAPI documents, and none fails inside."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_kinds import LEAST, NAMES, STORED, collection
from tests.unit.apiserver.test_server import Api

Object = dict[str, Any]
DOCUMENTS = {
    "api/v1": 120,
    "apis/apps/v1": 80,
    "apis/discovery.k8s.io/v1": 40,
    "apis/networking.k8s.io/v1": 60,
    "apis/apiextensions.k8s.io/v1": 40,
    "apis/authorization.k8s.io/v1": 30,
}
"""How many examples of each; they are spread over all of its operations. To make one takes twenty times as long as to send it, which
each is therefore in two ways."""


def request_of(case: Any, *, known: bool) -> Request:
    """What this case sends; of what is `known`, it is about an object that is there, or is to be (and the case says so from then on)."""
    if known:
        case.path_parameters = {"namespace": "default", "name": "x"} if case.path_parameters else {}
        if case.method in ("POST", "PUT") and isinstance(case.body, dict):
            metadata = {"name": "x" if case.method == "PUT" else "y", "labels": {"a": "b"}}
            case.body = {**{k: v for k, v in case.body.items() if k not in ("apiVersion", "kind")}, "metadata": metadata}
    headers = {"authorization": "Bearer secret"}
    if case.media_type:
        headers["content-type"] = case.media_type
    query = {
        name: [str(value) for value in (found if isinstance(found, list) else [found])] for name, found in case.query.items()
    }
    from schemathesis.core import NOT_SET

    body = b"" if isinstance(case.body, type(NOT_SET)) else _bytes(case.body)
    query["timeoutSeconds"] = ["0.001"]  # a watch ends
    return Request(case.method, unquote(case.formatted_path), query, headers, body)


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body, default=lambda inner: bytes(inner).decode("latin-1")).encode()


async def fire(api: Api, request: Request) -> None:
    """Send it: the answer is one that the API may give, refusals are Status objects, and the server still serves."""
    answer = await api.server.handle(request)
    if isinstance(answer, Response):
        assert answer.status < 500 or answer.status in (503, 504), (request, answer.body)
        if answer.status >= 400:
            status = json.loads(answer.body)
            assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", answer.status)
    else:
        async for _ in answer.chunks:  # type: ignore[union-attr]  # nothing here is upgraded
            pass


async def stock(api: Api) -> None:
    """One object of each kind, all of the same name."""
    for row in STORED:
        if row.id not in NAMES and row.id != "namespaces":
            await api("POST", collection(row), {"metadata": {"name": "x"}, **LEAST[row.id]})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_fails_inside(document: str, caplog: pytest.LogCaptureFixture) -> None:
    import schemathesis  # a second, for whoever collects tests
    from schemathesis import GenerationMode

    caplog.set_level(logging.ERROR)
    raw = asyncio.run(Api()("GET", f"/openapi/v3/{document}"))
    schema = schemathesis.openapi.from_dict(raw)
    operations = [found.ok() for found in schema.get_all_operations()]
    both = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for operation in operations for mode in both])
    api = Api()
    asyncio.run(stock(api))

    @settings(
        max_examples=DOCUMENTS[document],
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(cases)
    def shoot(case: Any) -> None:
        for known in (False, True):
            asyncio.run(fire(api, request_of(case, known=known)))

    shoot()
    assert not caplog.records, caplog.text
    assert "default" in asyncio.run(api.names("/api/v1/namespaces"))


async def test_the_documents_are_what_is_served() -> None:
    """Each document of the index is there, refers to nothing that it hasn't, and its paths are served."""
    api = Api()
    index = await api("GET", "/openapi/v3")
    assert DOCUMENTS.keys() <= set(index["paths"])
    for name in index["paths"]:
        document = await api("GET", f"/openapi/v3/{name}")
        text = json.dumps(document)
        references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
        assert references <= document["components"]["schemas"].keys()
        for path, item in document["paths"].items():
            if "get" in item and "{" not in path:
                assert (await api.answer("GET", path)).status == 200
