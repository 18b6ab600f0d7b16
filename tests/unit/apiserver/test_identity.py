"""Who asks, what they may, and what is written down of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest

from podplane.apiserver import audit
from podplane.apiserver.audit import AuditLog
from podplane.apiserver.identity import AUDIENCE, Attributes, Tokens, User, admin
from podplane.kubeapi.messages import Request
from tests.unit.apiserver.test_server import PODS, Api

Object = dict[str, Any]
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authentication.k8s.io/v1"
ACCESS = "/apis/authorization.k8s.io/v1"


class Clock:
    """A clock that is set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def api(clock: Clock) -> Api:
    api = Api()
    api.tokens._clock = clock
    await api("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    return api


async def token(api: Api, **spec: Any) -> str:
    """A token for the account."""
    found = await api("POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 600, **spec}})
    return str(found["status"]["token"])


async def code(api: Api, bearer: str, path: str = PODS) -> int:
    return int((await api.answer("GET", path, token=bearer)).status)


async def test_an_accounts_token_is_good_for_its_time(api: Api, clock: Clock) -> None:
    bearer = await token(api)
    assert await code(api, bearer) == 200
    review = await api("POST", f"{REVIEWS}/tokenreviews", {"spec": {"token": bearer}})
    assert review["status"]["user"]["username"] == "system:serviceaccount:default:robot"
    assert "system:serviceaccounts:default" in review["status"]["user"]["groups"]
    clock.now += 601
    assert await code(api, bearer) == 401
    assert (await api("POST", f"{REVIEWS}/tokenreviews", {"spec": {"token": bearer}}))["status"]["authenticated"] is False


async def test_a_token_ends_with_its_account(api: Api) -> None:
    bearer = await token(api)
    await api("DELETE", f"{ACCOUNTS}/robot")
    assert await code(api, bearer) == 401
    await api("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    assert await code(api, bearer) == 401, "another account of this name"
    assert await code(api, await token(api)) == 200


async def test_a_token_that_is_bound_ends_with_its_pod(api: Api) -> None:
    pod = await api.pod("web")
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": pod["metadata"]["uid"]}
    bearer = await token(api, boundObjectRef=reference)
    assert await code(api, bearer) == 200
    await api("DELETE", f"{PODS}/web")
    assert await code(api, bearer) == 401
    path = f"{ACCOUNTS}/robot/token"
    await api.refused("NotFound", "POST", path, {"spec": {"boundObjectRef": reference}})
    await api.refused("BadRequest", "POST", path, {"spec": {"boundObjectRef": {"kind": "Service", "name": "x"}}})


async def test_a_token_for_another_audience_opens_nothing_here(api: Api) -> None:
    bearer = await token(api, audiences=["vault"])
    assert await code(api, bearer) == 401
    spec = {"token": bearer, "audiences": ["vault", "other"]}
    assert (await api("POST", f"{REVIEWS}/tokenreviews", {"spec": spec}))["status"]["audiences"] == ["vault"]


@pytest.mark.parametrize("key", [b"k" * 32, b"x" * 32])
@pytest.mark.parametrize("algorithm", ["none", "HS384"])
async def test_tokens_that_were_made_elsewhere_are_worth_nothing(api: Api, key: bytes, algorithm: str) -> None:
    claims = jwt.decode(await token(api), options={"verify_signature": False})
    forged = jwt.encode(claims, None if algorithm == "none" else key, algorithm=algorithm)
    assert await code(api, forged) == 401
    if key != b"k" * 32:
        assert await code(api, jwt.encode(claims, key, algorithm="HS256")) == 401


@pytest.mark.parametrize("bearer", ["", "..", "a.b.c", "\N{SNOWMAN}", "x" * 10_000, "e30.e30.e30"])
async def test_nonsense_is_nobody(api: Api, bearer: str) -> None:
    assert await code(api, bearer) == 401


@pytest.mark.parametrize("seconds", [0, 599, 10**9])
async def test_tokens_last_ten_minutes_to_a_year(api: Api, seconds: int) -> None:
    await api.refused("Invalid", "POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": seconds}})


async def test_reviews_of_what_one_may(api: Api) -> None:
    own = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods"}}}
    assert (await api("POST", f"{ACCESS}/selfsubjectaccessreviews", own))["status"] == {"allowed": True}
    nobody = {"spec": {**own["spec"], "user": "stranger"}}
    assert (await api("POST", f"{ACCESS}/subjectaccessreviews", nobody))["status"]["allowed"] is False
    rules = await api("POST", f"{ACCESS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
    assert rules["status"]["resourceRules"][0]["verbs"] == ["*"]
    assert (await api("POST", f"{REVIEWS}/selfsubjectreviews", {}))["status"]["userInfo"]["username"] == "admin"
    await api.refused("Invalid", "POST", f"{ACCESS}/selfsubjectaccessreviews", {"spec": {}})
    await api.refused("Invalid", "POST", f"{ACCESS}/subjectaccessreviews", {"spec": own["spec"]})
    await api.refused("MethodNotAllowed", "GET", f"{REVIEWS}/tokenreviews")


async def test_the_seam_where_it_is_decided_who_may() -> None:
    api = Api()
    asked: list[Attributes] = []

    def decide(user: User, what: Attributes) -> str:
        asked.append(what)
        return "no role allows it" if what.verb == "delete" else ""

    api.server._authorize = decide
    await api.pod("web")
    assert "admin may not delete" in await api.refused("Forbidden", "DELETE", f"{PODS}/web")
    await api.answer("GET", PODS, watch="true")
    await api.answer("GET", "/apis")
    await api.answer("DELETE", PODS)
    assert [(what.verb, what.resource, what.name, what.path) for what in asked] == [
        ("create", "pods", "", ""),
        ("delete", "pods", "web", ""),
        ("watch", "pods", "", ""),
        ("get", "", "", "/apis"),
        ("deletecollection", "pods", "", ""),
    ]


async def test_the_audit_log_says_who_did_what_and_no_secrets(tmp_path: Path) -> None:
    api = Api()
    log = AuditLog(tmp_path / "audit.log")
    api.server._audit = log
    await api.answer("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "hidden"}})
    await api.answer("GET", PODS, token="wrong")
    await api.answer("GET", f"{PODS}/none/status", labelSelector="x=y")
    log.close()
    text = (tmp_path / "audit.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(e["verb"], e["user"]["username"], e["responseStatus"]["code"]) for e in lines] == [
        ("create", "admin", 201),
        ("get", "system:anonymous", 401),
        ("get", "admin", 404),
    ]
    assert lines[0]["objectRef"] == {"resource": "secrets", "namespace": "default", "apiVersion": "v1"}
    assert "hidden" not in text
    assert '"secret"' not in text
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_the_audit_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 2000)
    log = AuditLog(tmp_path / "audit.log")
    for _ in range(50):
        log.record(Request("GET", "/api"), admin(), Attributes("get", path="/api"), 200)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.log", "audit.log.1"]
    assert all(path.stat().st_size < 2600 for path in tmp_path.iterdir())


def test_an_audience_is_the_clusters_own() -> None:
    assert Tokens({"t": admin()}, b"k" * 32, Api().store).review("t", ()) == (admin(), (AUDIENCE,))


async def test_tokens_are_read_by_another_implementation(api: Api, clock: Clock) -> None:
    bearer = await token(api, audiences=["vault\u00e9"])
    claims = jwt.decode(
        bearer,
        api.tokens._key,
        algorithms=["HS256"],
        audience="vault\u00e9",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert jwt.get_unverified_header(bearer) == {"alg": "HS256", "typ": "JWT"}
    assert (claims["sub"], claims["exp"]) == ("system:serviceaccount:default:robot", int(clock.now) + 600)
