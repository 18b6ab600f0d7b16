"""TLS with pods, whose certificates nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest

from podplane.kernel.namespace import CurrentNamespace
from podplane.kubeapi.streams import StreamError
from podplane.runtime import http_probe, portforward


async def test_probes_and_proxies_have_one_context_that_knows_no_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[ssl.SSLContext] = []

    async def refuse(*_: Any, ssl: ssl.SSLContext, **__: Any) -> Any:
        contexts.append(ssl)
        raise ConnectionResetError

    async def dialled(*_: Any) -> socket.socket:
        return made

    monkeypatch.setattr(asyncio, "open_connection", refuse)
    monkeypatch.setattr(portforward, "dial", dialled)
    with socket.socket() as made:
        for _ in range(2):
            with pytest.raises(StreamError):
                await portforward.dial_from(CurrentNamespace(), "192.0.2.1", 443, tls=True)
            with contextlib.suppress(OSError):
                await http_probe.get("https://192.0.2.1/", (), dialled)
    assert len(contexts) == 4 and len(set(contexts)) == 1
    assert contexts[0].verify_mode is ssl.CERT_NONE and contexts[0].cert_store_stats()["x509"] == 0
