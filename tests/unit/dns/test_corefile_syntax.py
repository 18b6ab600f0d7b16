"""The grammar of Corefiles: words, blocks, snippets, variables; and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.corefile_syntax import CorefileError, Directive, Server, parse


def one(text: str, **environment: str) -> Server:
    (server,) = parse(text, environment)
    return server


def test_a_block_has_keys_and_directives_with_their_lines() -> None:
    server = one("# first\n.:53, corp.example {\n  errors  # why not\n\n  forward . 192.0.2.1 {\n    policy random\n  }\n}\n")
    block = (Directive("policy", ("random",), 6),)
    directives = (Directive("errors", (), 3), Directive("forward", (".", "192.0.2.1"), 5, block))
    assert server == Server((".:53", "corp.example"), 2, directives)


def test_keys_go_on_after_a_comma() -> None:
    assert one("a.example,\nb.example,\n\nc.example {\n}").keys == ("a.example", "b.example", "c.example")


def test_without_braces_there_is_one_block() -> None:
    server = one("corp.example:53\nerrors\nforward . 192.0.2.1\n")
    assert (server.keys, [d.name for d in server.directives]) == (("corp.example:53",), ["errors", "forward"])


def test_words_in_quotes_may_have_spaces_and_line_breaks() -> None:
    (log, next_) = one('. {\n log . "{remote}\n \\"x\\" # no comment"\n errors\n}').directives
    assert log.words == (".", '{remote}\n "x" # no comment')
    assert (log.line, next_.line) == (2, 4)


def test_variables_are_those_of_the_environment() -> None:
    (forward,) = one(
        "{$ZONE} {\n forward . {$A}:{%PORT%} {$MISSING}\n}", ZONE="corp.example", A="192.0.2.1", PORT="5353"
    ).directives
    assert forward.words == (".", "192.0.2.1:5353", "")
    assert forward.unset == ("MISSING",)


def test_snippets_are_imported_wherever_they_stand() -> None:
    server = one("(logs) {\n log\n import more\n}\n. {\n import logs\n import /etc/*.conf\n}\n(more) {\n errors\n}")
    assert [(d.name, d.words, d.line) for d in server.directives] == [
        ("log", (), 2),
        ("errors", (), 10),
        ("import", ("/etc/*.conf",), 7),
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (". {\n errors\n", 2, "a block is not closed"),
        (". {\n forward . 1 {\n policy\n", 3, "a block is not closed"),
        ("}\n", 1, "'}' is outside of a server block"),
        (". {\n}\nerrors\n", 3, "'errors' is outside of a server block"),
        ("a,\nb,\n{\n", 3, "a block is not closed"),
        ("{\n}\n", 1, "a server block has no zone"),
        ("a,\n. {\n}\nb,\n", 4, "a server block has no {"),
        (". { errors\n}\n", 1, "'.' is outside of a server block"),
        (". {\n a { b\n }\n}\n", 2, "a { is not at the end of its line, or a } not on a line of its own"),
        (". {\n a }\n}\n", 2, "a { is not at the end of its line, or a } not on a line of its own"),
        (". {\n {\n }\n}\n", 2, "a { is not at the end of its line, or a } not on a line of its own"),
        (". {\n} errors\n", 2, "'errors' stands behind a }"),
        ('. {\n log "x\n}\n', 2, "a quote is not closed"),
        (". {\n" * 9 + "}\n" * 9, 9, "blocks are nested deeper than 8 levels"),
        ("(a) {\n import a\n}\n. {\n import a\n}", 2, "there are too many directives, or snippets import each other"),
        ("x" * (1 << 20) + "x", 1, "the text is longer than 1048576 characters"),
    ],
)
def test_what_is_no_corefile_is_told_with_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(CorefileError) as refused:
        parse(text, {})
    assert (refused.value.line, str(refused.value)) == (line, what)


def test_snippets_that_multiply_are_refused() -> None:
    levels = [f"(s{i}) {{\n" + f" import s{i + 1}\n" * 5 + "}" for i in range(7)]
    text = "\n".join([*levels, "(s7) {\n" + " errors\n" * 100 + "}", ". {\n import s0\n}"])
    with pytest.raises(CorefileError, match="too many directives"):
        parse(text, {})


@given(
    st.lists(st.sampled_from([".", "{", "}", "\n", "a", '"', "#", ",", "(a)", "import a", "{$A}", "\\", " "]), max_size=40).map(
        " ".join
    )
)
def test_whatever_is_written_is_read_or_told(text: str) -> None:
    try:
        servers = parse(text, {})
    except CorefileError as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert all(server.keys for server in servers)
