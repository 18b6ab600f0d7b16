"""HTTP/1.1 of the built-in programs: requests from bytes, however they are cut, and what is refused, and when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.runtime.http_server import BadRequest, Parser, Request

TWO = b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n\r\nPOST /b HTTP/1.0\nContent-Length: 2\n\nhi"


def requests(chunks: list[bytes]) -> list[Request]:
    """All requests in what came."""
    parser, found = Parser(), []
    for chunk in chunks:
        parser.feed(chunk)
        while (request := parser.next()) is not None:
            found.append(request)
    return found


@given(st.lists(st.integers(0, len(TWO)), max_size=8))
def test_however_it_is_cut_it_is_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    found = requests([TWO[a:b] for a, b in pairwise(edges)])
    assert [(r.method, r.target, r.body, r.version) for r in found] == [("GET", "/a?x=1", b"", 1), ("POST", "/b", b"hi", 0)]


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        ([b"hostname\n"], 400),
        ([b"host", b"name\r", b"\n"], 400),
        ([b"GET /\n"], 400),
        ([b"SSH-2.0-x y HTTP/1.1\r\n"], 400),
        ([b"GET / HTTP/2.0\r\n"], 505),
        ([b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"nonsense\n"], 400),
    ],
)
def test_a_first_line_that_is_no_http_is_refused_at_once(chunks: list[bytes], status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        requests(chunks)
    assert refused.value.status == status


@pytest.mark.parametrize("begin", [b"", b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost", b"GET / HTTP/1.1\r\nHost: h\r\n"])
def test_what_may_become_a_request_is_waited_for(begin: bytes) -> None:
    assert requests([begin]) == []


CHUNKED = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
BODY = b"5;x=y\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"


@given(st.lists(st.integers(0, len(CHUNKED + BODY)), max_size=12))
def test_chunks_are_one_body_however_they_are_cut(cuts: list[int]) -> None:
    whole = CHUNKED + BODY + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
    edges = [0, *sorted(cuts), len(whole)]
    found = requests([whole[a:b] for a, b in pairwise(edges)])
    assert [(r.target, r.body) for r in found] == [("/a", b"hello 0123456789"), ("/next", b"")]


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (CHUNKED, b"x\r\n", 400),
        (CHUNKED, b"-1\r\n", 400),
        (CHUNKED, b"\r\n", 400),
        (CHUNKED, b"5\r\nhelloX\r\n", 400),
        (CHUNKED, b"f" * 5000, 400),
        (CHUNKED, b"fffff\r\n", 413),
        (CHUNKED, b"8000\r\n" + b"x" * 0x8000 + b"\r\n8001\r\n", 413),
        (CHUNKED, b"0\r\n" + b"a: b\r\n" * 20_000, 431),
        (CHUNKED.replace(b"Chunked", b"gzip, chunked"), b"", 501),
        (CHUNKED.replace(b"Host", b"Content-Length: 5\r\nHost"), b"", 400),
    ],
)
def test_chunks_that_are_none_are_refused(head: bytes, body: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        requests([head, body])
    assert refused.value.status == status
