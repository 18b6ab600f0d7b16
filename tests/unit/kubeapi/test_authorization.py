"""Who may read a node: the API is asked about tokens and rights, not too often, and not by too many at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.apiserver import identity
from podplane.apiserver.identity import Attributes, User
from podplane.kubeapi import authorization
from podplane.kubeapi.authorization import METRICS, PROXY, VIEWER_USER, Authorizer, Refusal
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request
from podplane.model.config import VIEWER, VIEWER_AUDIENCE
from tests.unit.apiserver.test_server import Api


class Reviewed:
    """An API server that knows a scraper and a stranger, in front of it a node that asks, and what it asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.api = Api()
        self.asked: list[str] = []
        self.rights: list[tuple[str, Attributes]] = []
        self.error: ApiError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        for token, user in {
            "agent": identity.node("node1"),
            "scraper": User("scraper", groups=(identity.AUTHENTICATED,)),
            "stranger": User("stranger", groups=(identity.AUTHENTICATED,)),
        }.items():
            self.api.tokens.add(token, user)
        self.api.server._reviews._authorize = self._authorize
        self.authorizer = Authorizer(Client(self._handle, "agent"), "node1", lambda: self.now)

    def _authorize(self, user: User, what: Attributes) -> str:
        self.rights.append((user.username, what))
        return "" if user.username == "scraper" else "no role"

    async def _handle(self, request: Request) -> Answer:
        self.asked.append(request.path.rpartition("/")[2])
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return await self.api.server.call(request)

    async def status(self, token: str, subresource: str = PROXY) -> int:
        refusal = await self.authorizer.refusal(token, subresource)
        return 200 if refusal is None else refusal.status


async def test_no_token_a_strange_one_no_right_and_a_right() -> None:
    at = Reviewed()
    assert [await at.status(token) for token in ("", "nobody", "stranger", "scraper")] == [401, 401, 403, 200]
    assert at.asked == ["tokenreviews", *("tokenreviews", "subjectaccessreviews") * 2]


async def test_the_right_is_that_of_a_kubelets_port() -> None:
    at = Reviewed()
    await at.status("scraper", METRICS)
    await at.status("scraper")
    assert at.rights == [
        ("scraper", Attributes("get", "", "v1", "nodes", subresource, "", "node1")) for subresource in ("metrics", "proxy")
    ]


async def test_answers_are_kept_for_some_seconds_for_each_right() -> None:
    at = Reviewed()
    for token, status in (("scraper", 200), ("nobody", 401)):
        at.asked.clear()
        assert [await at.status(token) for _ in range(5)] == [status] * 5
        assert at.asked.count("tokenreviews") == 1
        await at.status(token, METRICS)
        assert at.asked.count("tokenreviews") == 2
    at.asked.clear()
    at.now = authorization.KEPT_SECONDS
    await at.status("scraper")
    assert at.asked == ["tokenreviews", "subjectaccessreviews"]


async def test_no_token_is_kept_and_only_so_many_answers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorization, "KEPT", 3)
    at = Reviewed()
    for number in range(10):
        await at.status(f"token-{number}")
    assert len(at.authorizer._known) == 3
    assert "token-" not in repr(at.authorizer._known)
    at.asked.clear()
    await at.status("token-9")
    assert at.asked == []
    await at.status("token-0")
    assert at.asked == ["tokenreviews"]


async def test_an_api_that_is_away_is_a_refusal_that_is_not_kept() -> None:
    at = Reviewed()
    at.error = ApiError(503, "ServiceUnavailable", "the API does not answer: connection refused")
    refusal = await at.authorizer.refusal("scraper", PROXY)
    assert refusal is not None and refusal.status == 503 and "connection refused" in refusal.why
    at.error = None
    assert await at.status("scraper") == 200


async def test_an_api_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorization, "REVIEW_SECONDS", 0.01)
    at = Reviewed()
    at.gate.clear()
    assert await at.status("scraper") == 503


@contextlib.contextmanager
def begun(at: Reviewed, tokens: list[str]) -> Iterator[list[asyncio.Task[Refusal | None]]]:
    """Questions that wait for the API."""
    at.gate.clear()
    tasks = [asyncio.ensure_future(at.authorizer.refusal(token, PROXY)) for token in tokens]
    try:
        yield tasks
    finally:
        at.gate.set()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_questions_about_one_token_are_one() -> None:
    at = Reviewed()
    with begun(at, ["scraper"] * 40) as tasks:
        await turns()
        assert at.asked == ["tokenreviews"]
        tasks[0].cancel()  # its client went; the others go on
        await turns()
    assert [await task for task in tasks[1:]] == [None] * 39
    assert at.asked == ["tokenreviews", "subjectaccessreviews"]


async def test_of_many_tokens_only_so_many_are_asked_about_at_once() -> None:
    at = Reviewed()
    with begun(at, [f"token-{n}" for n in range(authorization.REVIEWS + 5)]) as tasks:
        await turns()
        assert len(at.asked) == authorization.REVIEWS
        assert [task.result().status for task in tasks[authorization.REVIEWS :]] == [429] * 5  # type: ignore[union-attr]  # refused
    assert [(await task).status for task in tasks[: authorization.REVIEWS]] == [401] * authorization.REVIEWS  # type: ignore[union-attr]
    assert await at.status("scraper") == 200


async def test_a_client_whose_tokens_are_not_confirmed_is_not_asked_about_for_long() -> None:
    at = Reviewed()

    async def status(token: str, client: str) -> int:
        refusal = await at.authorizer.refusal(token, PROXY, "", client)
        return 200 if refusal is None else refusal.status

    assert await status("scraper", "10.244.1.5") == 200, "that is not held against it"
    found = [await status(f"token-{n}", "10.244.1.5") for n in range(50)]
    assert found == [401] * authorization.OF_CLIENT + [429] * (50 - authorization.OF_CLIENT)
    assert at.asked.count("tokenreviews") == authorization.OF_CLIENT + 1
    assert await status("scraper", "10.244.1.5") == 200, "known is known"
    assert [await status("stranger", "192.168.1.1"), await status("other", "")] == [403, 401], "others are asked about"
    at.now = authorization.KEPT_SECONDS
    assert await status("token-50", "10.244.1.5") == 401


async def test_one_client_leaves_room_for_the_questions_of_others() -> None:
    at = Reviewed()
    at.gate.clear()
    tasks = [asyncio.ensure_future(at.authorizer.refusal(f"token-{n}", PROXY, "", "10.244.1.5")) for n in range(40)]
    other = asyncio.ensure_future(at.authorizer.refusal("scraper", PROXY, "", "192.168.1.1"))
    await turns()
    assert not other.done()
    at.gate.set()
    assert await other is None
    assert [getattr(await one, "status", 200) for one in tasks].count(401) == authorization.OF_CLIENT


async def test_an_api_that_is_away_is_not_held_against_a_client() -> None:
    at = Reviewed()
    at.error = ApiError(503, "ServiceUnavailable", "the API does not answer")
    for _ in range(2 * authorization.OF_CLIENT):
        refusal = await at.authorizer.refusal("scraper", PROXY, "", "192.168.1.1")
        assert refusal is not None and refusal.status == 503


async def test_only_so_many_clients_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorization, "KEPT", 3)
    at = Reviewed()
    for number in range(10):
        await at.authorizer.refusal("nobody", PROXY, "", f"10.244.1.{number}")
        at.now += authorization.KEPT_SECONDS
    assert len(at.authorizer._charges) == 3


@pytest.mark.parametrize("answer", [{}, {"status": None}, {"status": {"authenticated": "true"}}, {"status": []}])
async def test_what_is_no_answer_confirms_nobody(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    at = Reviewed()

    async def create(*_: Any) -> dict[str, Any]:
        return answer

    monkeypatch.setattr(at.authorizer._client, "create", create)
    assert await at.status("scraper") == 401


async def viewer_token(at: Reviewed, name: str, *audiences: str) -> str:
    """A token of a ServiceAccount of kube-system, as the API makes it."""
    path = "/api/v1/namespaces/kube-system/serviceaccounts"
    await at.api("POST", path, {"metadata": {"name": name}})
    made = await at.api("POST", f"{path}/{name}/token", {"spec": {"audiences": list(audiences), "expirationSeconds": 600}})
    return str(made["status"]["token"])


async def test_a_token_for_readers_is_enough_and_no_other_right_is_asked_for() -> None:
    """kube-apiserver passes on no credentials to what it proxies to."""
    at = Reviewed()
    token = await viewer_token(at, VIEWER, VIEWER_AUDIENCE)
    assert [await at.authorizer.refusal("", subresource, token) for subresource in (PROXY, METRICS)] == [None, None]
    assert at.asked == ["tokenreviews"], "both are one decision, which is kept"
    assert await at.status(token) == 401, "where a token of the user is expected it is none"


@pytest.mark.parametrize(
    ("account", "audiences", "status"),
    [(VIEWER, (), 401), (VIEWER, ("other",), 401), ("somebody", (VIEWER_AUDIENCE,), 403)],
)
async def test_a_token_of_somebody_else_or_for_another_audience_is_none_for_readers(
    account: str, audiences: tuple[str, ...], status: int
) -> None:
    at = Reviewed()
    refusal = await at.authorizer.refusal("scraper", PROXY, await viewer_token(at, account, *audiences))
    assert refusal is not None and refusal.status == status
    assert at.asked == [], "it says so itself"


def jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


OF_READERS = jwt(f'{{"aud":["{VIEWER_AUDIENCE}"],"sub":"{VIEWER_USER}"}}'.encode())


@pytest.mark.parametrize(
    "token",
    ["token", "a.b.c", "..", "a.\xff.c", *map(jwt, (b"", b"[]", b"7", b'{"aud":[]}', b'{"aud":7,"sub":[]}', b"[" * 9000))],
)
async def test_what_is_no_token_for_readers_is_refused_without_a_question(token: str) -> None:
    at = Reviewed()
    refusal = await at.authorizer.refusal("", PROXY, token)
    assert refusal is not None and refusal.status == 401 and at.asked == []


async def test_one_that_only_says_that_it_is_for_readers_is_asked_about_and_refused() -> None:
    at = Reviewed()
    refusal = await at.authorizer.refusal("", PROXY, OF_READERS)
    assert refusal is not None and refusal.status == 401 and at.asked == ["tokenreviews"]


async def test_a_server_that_does_not_say_for_whom_a_token_is_confirms_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Reviewed()

    async def create(*_: Any) -> dict[str, Any]:
        return {"status": {"authenticated": True, "user": {"username": VIEWER_USER}}}

    monkeypatch.setattr(at.authorizer._client, "create", create)
    refusal = await at.authorizer.refusal("", PROXY, await viewer_token(at, VIEWER, VIEWER_AUDIENCE))
    assert refusal is not None and refusal.status == 401
