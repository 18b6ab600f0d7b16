"""What commands about a file of policies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

import click

from podplane.cli.tables import plain

MAX_CHARACTERS = 16 * 1024 * 1024


def text_of(file: TextIO) -> str:
    """All of a file. ClickException when it is no text, or too large."""
    try:
        text = file.read(MAX_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file.name} is not UTF-8: {error.reason} at byte {error.start}") from None
    if len(text) > MAX_CHARACTERS:
        raise click.ClickException(f"{file.name} is larger than {MAX_CHARACTERS:,} characters")
    return text


def tell_others(numbers: Mapping[str, int], verb: str, which: str) -> None:
    """Say on standard error what of a file, by kind, is none of these."""
    if numbers:
        others = ", ".join(f"{number} {plain(kind)}" for kind, number in sorted(numbers.items()))
        click.echo(f"Not {verb}: {others} ({which} are)", err=True)


def known_objects(client: Any, kinds: set[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The Namespaces and Pods that are there, by kind and path, if the file has some."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, resource in (("Namespace", "namespaces"), ("Pod", "pods")):
        for one in client.objects(resource) if kind in kinds else ():
            metadata = one["metadata"]
            found[kind, "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))] = one
    return found
