"""Errors that nobody thought of are counted, and their tracebacks fill no disk."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest

from podplane.apiserver.controllers.decision import Action, View
from podplane.apiserver.unforeseen import Unforeseen
from podplane.controllers.objects import Key
from tests.unit.apiserver.controllers.test_manager import Bench, of_configs
from tests.unit.apiserver.test_metrics import figure, read
from tests.unit.apiserver.test_server import Api


def raising(logger: logging.Logger, message: str, error: Exception) -> None:
    try:
        raise error
    except type(error):
        logger.exception("worker=%s failed", message)


def a_logger(errors: Unforeseen, name: str) -> tuple[logging.Logger, io.StringIO]:
    logger, out = logging.Logger(name), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(errors)
    logger.addHandler(handler)
    return logger, out


def test_a_traceback_that_repeats_is_written_once_a_minute() -> None:
    now = 100.0
    errors = Unforeseen(lambda: now)
    logger, out = a_logger(errors, "podplane.runtime.pod")
    raising(logger, "a", OSError(5, "Input/output error"))
    raising(logger, "b", OSError(5, "Input/output error"))
    logger.warning("nothing unforeseen")
    text = out.getvalue()
    assert text.count("Traceback") == 1
    assert "worker=b failed: OSError: [Errno 5] Input/output error\n" in text
    raising(logger, "c", ValueError("another"))
    now = 161.0
    raising(logger, "d", OSError(5, "Input/output error"))
    assert out.getvalue().count("Traceback") == 3
    last = {
        "module": "runtime.pod",
        "message": "worker=d failed",
        "error": "OSError: [Errno 5] Input/output error",
        "at": 161.0,
    }
    assert errors.report() == {"counts": {"runtime.pod": 4}, "last": last}


async def test_they_are_figures_and_are_told_to_who_may_ask() -> None:
    api = Api()
    errors = api.server._unforeseen
    raising(a_logger(errors, "podplane.runtime.pod")[0], "a", KeyError("x"))
    assert figure(await read(api), "podplane_unforeseen_errors_total", module="runtime.pod") == 1
    assert figure(await read(api), "podplane_unwritten_transactions_total") == 0
    assert (await api("GET", "/debug/unforeseen"))["counts"] == {"runtime.pod": 1}
    assert (await api.answer("GET", "/debug/unforeseen", token="wrong")).status == 401


async def test_a_request_that_fails_is_told_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    monkeypatch.setattr(api.server._reader, "get", {}.__getitem__)
    assert "its log says how" in await api.refused("InternalError", "GET", "/api/v1/namespaces/default")
    assert "request method=GET path=/api/v1/namespaces/default" in caplog.text
    assert await api.names("/api/v1/namespaces")


async def test_what_ends_in_the_loop_or_a_controller_counts() -> None:
    def fails(_: View, key: Key) -> list[Action]:
        raise RuntimeError("a controller")

    root, errors = logging.getLogger(), Unforeseen()
    handler = logging.StreamHandler(io.StringIO())
    handler.addFilter(errors)
    root.addHandler(handler)
    try:
        bench = Bench(of_configs(fails))
        await bench.config("a")
        await bench.manager.drain()
        asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        root.removeHandler(handler)
    assert errors.counts == {"controllers.manager": 1, "asyncio": 1}
