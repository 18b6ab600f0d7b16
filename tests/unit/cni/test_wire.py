"""Requests and answers as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.cni import wire
from podplane.cni.errors import CniError

names = st.text(st.characters(codec="utf-8", exclude_characters="=\0"), min_size=1, max_size=9)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)


@given(st.dictionaries(names, values, max_size=4), st.binary(max_size=30))
def test_a_request_is_read_as_it_was_made(env: dict[str, str], stdin: bytes) -> None:
    data = wire.request(env, stdin)
    assert wire.length_of(data) == len(data) - wire.LENGTH.size
    assert wire.parse(data[wire.LENGTH.size :]) == (env, stdin)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_an_error(body: bytes) -> None:
    try:
        env, stdin = wire.parse(body)
    except CniError:
        return
    assert wire.request(env, stdin)[wire.LENGTH.size :].endswith(b"\0" + stdin)


def test_a_request_has_bounds() -> None:
    with pytest.raises(ValueError, match="at most"):
        wire.request({}, b"x" * wire.REQUEST_BYTES)
    with pytest.raises(ValueError, match="null"):
        wire.request({"A": "a\0b"}, b"")
    with pytest.raises(CniError, match="at most"):
        wire.length_of(wire.LENGTH.pack(wire.REQUEST_BYTES + 1))
