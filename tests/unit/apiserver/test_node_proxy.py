"""nodes/proxy: whose credential a node sees, and what comes back of its answer."""

from __future__ import annotations

import json

import pytest

from podplane.model.config import AGENT_PORT
from tests.unit.apiserver.test_server import Api

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\nset-cookie: a\r\nretry-after: 1\r\n\r\nhi"


class Connection:
    """A connection to a node that answers always the same."""

    def __init__(self) -> None:
        self.request = b""
        self.is_closed = False

    async def write(self, data: bytes) -> None:
        self.request += data

    async def read(self) -> bytes:
        return ANSWER

    def close(self) -> None:
        self.is_closed = True


class Nodes:
    """The way to all nodes."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.dialled: list[tuple[str, int]] = []

    async def dial(self, host: str, port: int) -> Connection:
        self.dialled.append((host, port))
        return self.connection


async def proxied(port: int) -> tuple[Api, Nodes]:
    """A user asked node n1 something at this port."""
    api, nodes = Api(), Nodes()
    api.server.streams = nodes  # type: ignore[assignment]  # only `dial` is used
    status = {"addresses": [{"type": "InternalIP", "address": "192.168.1.10"}]}
    await api("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status})
    answer = await api.answer("GET", f"/api/v1/nodes/n1:{port}/proxy/traffic")
    assert (answer.status, answer.body, answer.content_type) == (200, b"hi", "text/plain")
    assert answer.headers == (("retry-after", "1"),)
    assert nodes.dialled == [("192.168.1.10", port)] and nodes.connection.is_closed
    return api, nodes


def bearer(nodes: Nodes) -> str:
    """The token that the node saw."""
    lines = nodes.connection.request.decode().split("\r\n")
    return next((line.removeprefix("authorization: Bearer ") for line in lines if line.startswith("authorization")), "")


async def test_the_agent_sees_a_credential_of_the_api_server_and_not_the_users() -> None:
    api, nodes = await proxied(AGENT_PORT)
    token = bearer(nodes)
    assert len(token) > 30 and b"secret" not in nodes.connection.request
    review = await api("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    assert review["status"]["user"]["username"] == "kube-apiserver-kubelet-client"


async def test_that_credential_opens_nothing_in_the_api_itself() -> None:
    api, nodes = await proxied(AGENT_PORT)
    answer = await api.answer("GET", "/api/v1/nodes", token=bearer(nodes))
    assert answer.status == 401


@pytest.mark.parametrize("port", [80, 10250, 32000])
async def test_others_on_the_node_see_no_credential(port: int) -> None:
    _, nodes = await proxied(port)
    assert b"authorization" not in nodes.connection.request


async def test_each_api_server_has_a_credential_of_its_own() -> None:
    first, second = (await proxied(AGENT_PORT))[1], (await proxied(AGENT_PORT))[1]
    assert bearer(first) != bearer(second)
    answer = await Api().answer(
        "POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": bearer(first)}, "metadata": {}}
    )
    assert json.loads(answer.body)["status"]["authenticated"] is False
