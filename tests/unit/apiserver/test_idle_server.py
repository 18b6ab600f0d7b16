"""What the HTTPS server of the API does while nobody asks anything."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvicorn

from podplane.apiserver.asgi import Server
from tests.unit.virtual_time import virtual


async def nothing(scope: object, receive: object, send: object) -> None:
    """An application that nobody asks."""


@virtual
async def test_an_idle_server_wakes_once_a_second_and_its_date_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    began, ticks = loop.time(), list[float]()

    def now() -> float:
        ticks.append(loop.time() - began)
        return ticks[-1]

    server = Server(uvicorn.Config(nothing, log_config=None))
    monkeypatch.setattr(time, "time", now)
    serving = asyncio.ensure_future(server.main_loop())
    await asyncio.sleep(3.5)
    assert [round(at) for at in ticks] == [0, 1, 2, 3]
    assert dict(server.server_state.default_headers)[b"date"] == b"Thu, 01 Jan 1970 00:00:03 GMT"
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
