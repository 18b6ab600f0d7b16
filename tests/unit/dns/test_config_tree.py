"""Documents of YAML: what is read is what was written; what can't be read is told with its line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.config_tree import TreeError, read

WORDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(TREES, st.booleans())
def test_what_was_written_is_read(tree: Any, in_lines: bool) -> None:
    try:
        text = yaml.dump(tree, Dumper=_Dumper, default_flow_style=in_lines, allow_unicode=True)
        found = read(text)
    except TreeError as error:
        assert "nested deeper" in str(error)
    else:
        assert found == tree


class _Dumper(yaml.SafeDumper):
    """Without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("'true'", "true"),
        ("true", True),
        ("True", "True"),
        ("~", None),
        ("1:20:30", "1:20:30"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("-5", -5),
        ("1.5", "1.5"),
        ("2026-01-01", "2026-01-01"),
        ("<<", "<<"),
        ("|\n a\n b", "a\nb"),
        ("{no: [off, 007]}", {"no": ["off", 7]}),
        ("9" * 19, "9" * 19),
        ("", None),
        ("# nothing", None),
        ("&x [1]", [1]),
    ],
)
def test_what_has_no_quotes_is_mostly_text(text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is there twice"),
        ("x:\n  - {a: 1, a: 1}", 2, "the key 'a' is there twice"),
        ("a: 1\n---\nb: 1", 2, "there is a second document"),
        ("a: !!set {b}", 1, "there is a tag, tag:yaml.org,2002:set"),
        ("a: !x b", 1, "there is a tag, !x"),
        ("? [a]\n: b", 1, "a key is a list, or has keys itself"),
        ("? {a: b}\n: b", 1, "a key is a list, or has keys itself"),
        ("a: &b [*b]", 0, "the configuration is YAML with aliases: write them out"),
        ("[" * 9, 0, "the configuration is nested deeper than 8 levels"),
    ],
)
def test_what_can_not_be_read_is_told(text: str, line: int, what: str) -> None:
    with pytest.raises(TreeError) as refused:
        read(text)
    assert (refused.value.line, str(refused.value)) == (line, what)
