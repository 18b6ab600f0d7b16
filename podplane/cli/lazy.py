"""Groups of commands whose modules are imported when a command is called: `--help` must be instant."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import click

Rows = Mapping[str, tuple[str, str, str]]
"""Name → module, function, one line of help."""


class Lazy(click.Group):
    """A group that imports a command when it is called, and lists commands without importing any."""

    def __init__(self, *arguments: Any, rows: Rows, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._rows = rows

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of use."""
        return list(self._rows)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import it."""
        if name not in self._rows:
            return None
        module, function, _ = self._rows[name]
        with no_collections():
            command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and their lines."""
        if self._rows:
            with formatter.section("Commands"):
                formatter.write_dl([(name, text) for name, (_, _, text) in self._rows.items()])


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """No garbage collection in here: what imports make stays, and looking at it again and again is an eighth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
