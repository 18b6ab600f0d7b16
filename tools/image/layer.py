"""The files of a layer. Where they are copied from the machine, so are the symbolic links that lead to them."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LEVEL = 9
EXECUTABLE, PLAIN, FOLDER = 0o755, 0o644, 0o755
MOST_LINKS = 40
"""As many symbolic links lead to a file at the most (path_resolution(7))."""


class Entry(NamedTuple):
    """A file with its content, a symbolic link with its target, or a folder with neither."""

    mode: int
    content: bytes | None = None
    target: str = ""


class Layer:
    """Entries by absolute path; folders above an entry come with it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def folder(self, path: str, mode: int = FOLDER) -> None:
        """A folder, with the permissions `mode`."""
        self._set(path, Entry(mode))

    def put(self, path: str, content: bytes, mode: int = PLAIN) -> None:
        """A file."""
        self._set(path, Entry(mode, content))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._set(path, Entry(0o777, None, target))

    def copy(self, source: Path, content: bytes | None = None) -> None:
        """A file of this machine at the same path, or another content there, and the links on the way to it."""
        place = Path(os.path.normpath(source.absolute()))
        for _ in range(MOST_LINKS):
            link = next((one for one in (*reversed(place.parents), place) if one.is_symlink()), None)
            if link is None:
                break
            target = os.readlink(link)
            self.link(str(link), target)
            place = Path(os.path.normpath(link.parent / target / place.relative_to(link)))
        executable = os.access(place, os.X_OK)
        self.put(str(place), place.read_bytes() if content is None else content, EXECUTABLE if executable else PLAIN)

    def _set(self, path: str, entry: Entry) -> None:
        for above in reversed(Path(path).parents[:-1]):
            self._entries.setdefault(str(above), Entry(FOLDER))
        self._entries[path] = entry

    def files(self) -> Iterator[str]:
        """The paths of all files."""
        return (path for path, entry in self._entries.items() if entry.content is not None)

    def tar(self) -> bytes:
        """An archive (tar) of all entries: owned by root, in the order of their names, without a time."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, entry in sorted(self._entries.items()):
                member = tarfile.TarInfo(path.lstrip("/"))
                member.mode, member.linkname, member.size = entry.mode, entry.target, len(entry.content or b"")
                member.type = tarfile.SYMTYPE if entry.target else tarfile.DIRTYPE if entry.content is None else tarfile.REGTYPE
                archive.addfile(member, io.BytesIO(entry.content or b""))
        return buffer.getvalue()


def compressed(tar: bytes, level: int = LEVEL) -> bytes:
    """By gzip at this level, without a time."""
    return gzip.compress(tar, level, mtime=0)
