"""Kinds of bodies; the expected ones are those of Go's http.DetectContentType."""

from __future__ import annotations

import pytest

from podplane.runtime.http_server import Response
from podplane.runtime.sniffing import kind

TEXT, HTML, XML, BINARY = (
    "text/plain; charset=utf-8",
    "text/html; charset=utf-8",
    "text/xml; charset=utf-8",
    "application/octet-stream",
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", TEXT),
        (b"hello", TEXT),
        (b'{"a":1}', TEXT),
        (b'<a href="/x">test</a>', HTML),
        (b" \r\n\t\x0c<A>", HTML),
        (b"<!doctype html>", HTML),
        (b"<!-- x -->", HTML),
        (b"<!--x", TEXT),
        (b"<abbr>", TEXT),
        (b"<a/>", TEXT),
        (b"<a", TEXT),
        (b"x<a >", TEXT),
        (b"<br ", HTML),
        (b"<section>", TEXT),
        (b'\n<?xml version="1.0"?>', XML),
        (b"<?XML", TEXT),
        (b"a\x00b", BINARY),
        (b"\x1b[1m", TEXT),
        (b"a" * 512 + b"\x00", TEXT),
        ("ü".encode(), TEXT),
    ],
)
def test_kinds(body: bytes, expected: str) -> None:
    assert kind(body) == expected


def test_an_answer_says_what_it_is_unless_it_is_said() -> None:
    assert f"Content-Type: {HTML}\r\n".encode() in Response(b"<p>x").head(close=False)
    assert b"Content-Type: a/b\r\n" in Response(b"<p>x", content_type="a/b").head(close=False)
