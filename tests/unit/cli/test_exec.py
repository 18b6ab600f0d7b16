"""`podplane exec`: which words are its own, and which are the command's."""

from __future__ import annotations

import click
import pytest

from podplane.cli.exec import execute


def parsed(*words: str) -> tuple[str, str, bool, tuple[str, ...]]:
    """Lab, pod, whether input is passed on, and the command."""
    found = execute.make_context("exec", list(words)).params
    command = found["command"]
    return found["name"], found["pod"], found["interactive"], command[1:] if command[0] == "--" else command


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("web ls", ("lab", "web", False, ("ls",))),
        ("web ls -i --name x", ("lab", "web", False, ("ls", "-i", "--name", "x"))),
        ("web -- ls -i", ("lab", "web", False, ("ls", "-i"))),
        ("--name lab2 -i web ls", ("lab2", "web", True, ("ls",))),
        ("web --name lab2 -- ls", ("lab2", "web", False, ("ls",))),
        ("web -i --name=lab2 -- ls --name x", ("lab2", "web", True, ("ls", "--name", "x"))),
        ("-i web --name lab2 -- -x", ("lab2", "web", True, ("-x",))),
        ("web -- ls -- x", ("lab", "web", False, ("ls", "--", "x"))),
        ("web git log -p -- file", ("lab", "web", False, ("git", "log", "-p", "--", "file"))),
        ("web -it -- sh", ("lab", "web", True, ("sh",))),
    ],
)
def test_words(words: str, wanted: tuple[str, str, bool, tuple[str, ...]]) -> None:
    assert parsed(*words.split()) == wanted


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--nonsense web -- ls", "--nonsense"),
        ("web", "command"),
        ("web --", "command"),
    ],
)
def test_what_is_no_option_is_said(words: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        run(words)


@pytest.mark.parametrize("words", ["web --name lab2 ls", "web -x -- ls", "web --nonsense -- ls"])
def test_an_option_where_a_command_stands_is_refused(words: str) -> None:
    with pytest.raises(click.UsageError, match="put `--` between web and the command"):
        run(words)


def run(words: str) -> None:
    """Call it, as far as it can be without a lab."""
    execute.main(words.split(), standalone_mode=False)
