"""What commands write to terminals that lack characters."""

from __future__ import annotations

import io
import json
import sys

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from podplane.cli import characters
from podplane.cli.check.report import BAD, GOOD, NONE
from podplane.cli.tables import document_text

TEXT = f"{GOOD} {BAD} {NONE} a → b … 3 µs é"


def written(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What arrives at a terminal of this encoding."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    characters.prepare()
    click.echo(text)
    sys.stdout.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "wanted"),
    [
        ("utf-8", TEXT),
        ("latin-1", "+ x · a -> b ... 3 µs é"),
        ("ascii", "+ x . a -> b ... 3 us ?"),
        ("ansi_x3.4-1968", "+ x . a -> b ... 3 us ?"),
        ("koi8-r", "+ x · a -> b ... 3 us ?"),
    ],
)
def test_each_of_our_characters_has_a_form(encoding: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(TEXT, encoding, monkeypatch) == wanted + "\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
def test_bytes_that_are_no_text_are_written_as_well(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(b"a\xff".decode("utf-8", "surrogateescape"), encoding, monkeypatch) == "a?\n"


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_any_text_can_be_written(text: str, encoding: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert written(text, encoding, patch)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_documents_say_the_same_to_programs(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"a": "é → 𝄞", "b": [1, None]}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    texts = [document_text(document, output) for output in ("json", "yaml")]
    assert all(text.isascii() is (encoding != "utf-8") for text in texts)
    assert [json.loads(texts[0]), yaml.safe_load(texts[1])] == [document, document]


def test_arguments_are_utf_8_whatever_the_locale() -> None:
    assert characters.arguments(["a", "ä".encode().decode("ascii", "surrogateescape"), "ä"]) == ["a", "ä", "ä"]
    with pytest.raises(ValueError, match=r"b'\\xff' is no text in UTF-8"):
        characters.arguments([b"\xff".decode("utf-8", "surrogateescape")])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escapes_change_nothing_for_programs(text: str) -> None:
    escaped = characters.escaped_json(json.dumps(text, ensure_ascii=False))
    assert escaped.isascii()
    assert json.loads(escaped) == text
