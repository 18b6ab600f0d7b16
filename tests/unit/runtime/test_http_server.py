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
