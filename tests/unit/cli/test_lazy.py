"""Groups that import their commands late."""

from __future__ import annotations

import gc
import importlib
import sys

import click
import pytest
from click.testing import CliRunner

from podplane.cli.lazy import Lazy
from podplane.cli.main import COMMANDS, podplane

GROUP = Lazy(
    "names", rows={"some": ("podplane.cli.names", "some", "Say names."), "none": ("podplane.nowhere", "none", "Nothing.")}
)


def test_help_lists_commands_and_imports_none() -> None:
    """The module of `none` does not exist."""
    found = CliRunner().invoke(GROUP, ["--help"])
    assert found.exit_code == 0
    assert "  some  Say names.\n  none  Nothing.\n" in found.output
    assert "podplane.nowhere" not in sys.modules


def test_an_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(GROUP, ["other"]).exit_code == 2


def test_a_group_of_none_says_so() -> None:
    assert "Commands" not in CliRunner().invoke(Lazy("empty", rows={}), ["--help"]).output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_row_has_a_command(name: str) -> None:
    module, function, _ = COMMANDS[name]
    assert isinstance(getattr(importlib.import_module(module), function), click.Command)


def test_a_group_in_a_group() -> None:
    assert CliRunner().invoke(podplane, ["dns", "--help"]).exit_code == 0


@pytest.mark.parametrize("is_enabled", [True, False])
def test_imports_collect_no_garbage_and_what_follows_does(is_enabled: bool) -> None:
    was_enabled, seen = gc.isenabled(), []
    rows = {"some": ("podplane.cli.names", "some", "")}
    try:
        (gc.enable if is_enabled else gc.disable)()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importlib, "import_module", lambda name: seen.append(gc.isenabled()) or click)
            with pytest.raises(AttributeError):
                Lazy("names", rows=rows).get_command(click.Context(GROUP), "some")
        assert (seen, gc.isenabled()) == ([False], is_enabled)
    finally:
        (gc.enable if was_enabled else gc.disable)()
