"""Paths that are no resources': with and without a slash at the end, and what health answers (k8s.io/apiserver, server/healthz)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver import health
from podplane.apiserver.store import Store
from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import Api

WELL, ILL = {"ping": health.ping, "etcd": lambda: ""}, {"ping": health.ping, "etcd": lambda: "disk I/O error"}


@pytest.fixture
def api() -> Api:
    return Api()


def ask(path: str, checks: Any = WELL, method: str = "GET", **query: list[str]) -> tuple[int, str]:
    answer = health.answer(Request(method, path, query), checks)
    assert answer is not None
    return answer.status, answer.body.decode()


async def test_every_path_that_is_listed_answers_with_and_without_a_slash_at_its_end(api: Api) -> None:
    paths = (await api("GET", "/"))["paths"]
    assert {"/version", "/readyz", "/livez/ping", "/api", "/apis/apps/v1", "/openapi/v3"} <= set(paths)
    for path in paths:
        plain, slashed = await api.answer("GET", path), await api.answer("GET", f"{path}/")
        assert isinstance(plain, Response)
        assert plain.status == 200, path
        assert slashed == plain or path == "/metrics", path  # which counts both
        assert slashed.status == plain.status


@pytest.mark.parametrize("path", ["/version/", "/readyz/", "/livez/", "/healthz/", "/readyz/etcd/"])
async def test_what_is_open_is_so_with_a_slash_too(api: Api, path: str) -> None:
    assert (await api.answer("GET", path, token="")).status == 200


@pytest.mark.parametrize("path", ["/version/x", "/readyz/nonsense", "/readyzz", "/healthz/ping/x"])
async def test_what_is_not_there_is_not_found(api: Api, path: str) -> None:
    assert (await api.answer("GET", path, token="")).status == 401
    answer = await api.answer("GET", path)
    assert json.loads(answer.body)["reason"] == "NotFound"


def test_health_is_ok_in_a_word() -> None:
    for path in health.PATHS:
        assert ask(path) == ask(f"{path}/ping") == (200, "ok")
    assert ask("/readyz", method="HEAD") == (200, "ok")
    assert health.answer(Request("POST", "/readyz"), WELL) is None


def test_verbose_health_has_a_line_a_check() -> None:
    assert ask("/readyz", verbose=[""]) == (200, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n")


def test_a_check_that_fails_is_named_but_its_reason_only_where_it_is_asked_for() -> None:
    assert ask("/livez", ILL) == (500, "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n")
    assert ask("/livez/etcd", ILL) == (500, "internal server error: disk I/O error\n")


def test_checks_can_be_excluded_and_unknown_ones_are_named() -> None:
    assert ask("/livez", ILL, exclude=["etcd"]) == (200, "ok")
    status, text = ask("/livez", ILL, exclude=["etcd", "nothing"], verbose=[""])
    unknown = 'warn: some health checks cannot be excluded: no matches for "nothing"'
    assert (status, text) == (200, f"[+]ping ok\n[+]etcd excluded: ok\n{unknown}\nlivez check passed\n")


def test_a_store_that_is_closed_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    assert store.failure() == ""
    store.close()
    assert "closed" in store.failure()
