"""Output for terminals that have not all characters: each of ours has a form in ASCII, and any other is a question mark.

A command may not end in a UnicodeEncodeError because an object's annotation has a letter that a Latin-1 terminal lacks, nor because an
argument was no UTF-8 (Python keeps such bytes as surrogates, which no encoding takes).
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

FORMS = {"✓": "+", "✗": "x", "·": ".", "…": "...", "→": "->", "—": "-", "–": "-", "×": "x", "µ": "u", "μ": "u"}
ERRORS = "podplane"
ASCII = "podplane-ascii"
"""ASCII under another name: click takes a stream of that encoding for misconfigured, and writes UTF-8 to it."""
NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def prepare() -> None:
    """Let standard output and standard error write anything."""
    codecs.register_error(ERRORS, replaced)
    codecs.register(_ascii)
    for stream in (sys.stdout, sys.stderr):
        _prepare(stream)


def _prepare(stream: TextIO) -> None:
    if hasattr(stream, "reconfigure"):  # pytest's and other programs' own streams take everything
        is_ascii = codecs.lookup(stream.encoding or "utf-8").name == "ascii"
        stream.reconfigure(encoding=ASCII if is_ascii else None, errors=ERRORS)


def replaced(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what stands for the characters that can't be written, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(FORMS.get(character, "?") for character in error.object[error.start : error.end]), error.end


def _ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ASCII:
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        incrementalencoder=found.incrementalencoder,
        incrementaldecoder=found.incrementaldecoder,
        name=ASCII,
    )


def arguments(words: Sequence[str]) -> list[str]:
    """The words of a command line as UTF-8, whatever the locale made of their bytes. ValueError for one that is none."""
    found = []
    for word in words:
        try:
            found.append(os.fsencode(word).decode())
        except UnicodeDecodeError:
            raise ValueError(f"{os.fsencode(word)!r} is no text in UTF-8: nothing in a cluster has such a name") from None
    return found


def are_few() -> bool:
    """Does standard output lack characters? Then what programs read has escapes instead."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"


def escaped_json(text: str) -> str:
    """JSON with escapes for all that is not ASCII (RFC 8259, 7)."""
    return NOT_ASCII.sub(_escapes, text)


def _escapes(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
