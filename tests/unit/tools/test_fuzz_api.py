"""The tool that sends odd requests finds what fails, and today nothing does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podplane.apiserver.server import ApiServer
from podplane.kubeapi.messages import Request, Stream
from tools import fuzz_api


async def test_no_request_makes_the_api_or_a_controller_fail() -> None:
    found = await fuzz_api.fuzz(800, seed=3, milliseconds=1e9)
    assert found.counts == {}
    assert {200, 201, 400, 404, 422} <= found.answers.keys()


async def test_what_fails_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(self: ApiServer, request: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ApiServer, "_describe", wrong)
    found = await fuzz_api.fuzz(60, seed=3, milliseconds=0.0)
    assert found.counts["500"] == found.answers[500] > 0
    assert found.counts["traceback"] == found.counts["500"]
    assert found.counts["more than 0 ms"]
    assert "ZeroDivisionError" in capsys.readouterr().out


async def test_an_answer_without_an_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_api, "READ_SECONDS", 0.01)
    answer = await fuzz_api.World().server.handle(
        Request("GET", "/api/v1/pods", {"watch": ["x"], "timeoutSeconds": ["0"]}, {"authorization": "Bearer secret"})
    )
    assert isinstance(answer, Stream)
    async with asyncio.timeout(5):
        await fuzz_api.read(answer)
