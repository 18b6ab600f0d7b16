"""Log files hold what containers said, in the format of container runtimes, whatever the pieces in which it came."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.runtime import output
from podplane.runtime.output import LINE_BYTES, LogFile

STAMP = "2026-01-02T03:04:05.000006000Z"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC)
LENGTHS = st.sampled_from([0, 1, 2, 80, LINE_BYTES - 1, LINE_BYTES, LINE_BYTES + 1, 2 * LINE_BYTES, 3 * LINE_BYTES + 7])
TEXTS = st.lists(st.tuples(LENGTHS, st.booleans()), max_size=6).map(
    lambda lines: b"".join(b"x" * length + (b"\n" if ends else b"") for length, ends in lines)
)


def logged(pieces: list[tuple[str, bytes]]) -> list[tuple[bytes, ...]]:
    """(time, stream, tag, text) of each line of the file."""
    with tempfile.TemporaryDirectory() as name:
        file = LogFile(Path(name, "log"), lambda: NOW)
        for stream, data in pieces:
            file.write(stream, data)
        for stream in ("stdout", "stderr"):
            file.finish(stream)
        file.close()
        text = Path(name, "log").read_bytes() if Path(name, "log").exists() else b""
    assert not text or text.endswith(b"\n")
    return [tuple(line.split(b" ", 3)) for line in text.split(b"\n")[:-1]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), TEXTS), max_size=6))
def test_nothing_is_lost_and_no_part_is_too_long(pieces: list[tuple[str, bytes]]) -> None:
    lines = logged(pieces)
    assert {line[0] for line in lines} <= {STAMP.encode()}
    for stream in ("stdout", "stderr"):
        own = [(tag, text) for _, name, tag, text in lines if name == stream.encode()]
        assert all(len(text) <= LINE_BYTES for _, text in own)
        assert all(len(text) == LINE_BYTES for tag, text in own if tag == b"P")
        said = b"".join(data for name, data in pieces if name == stream)
        whole = said if not said or said.endswith(b"\n") else said + b"\n"
        assert b"".join(text + (b"\n" if tag == b"F" else b"") for tag, text in own) == whole


def test_pieces_are_no_longer_than_a_line() -> None:
    assert output.CHUNK_BYTES <= LINE_BYTES, "else a line in the middle of one could be too long"
