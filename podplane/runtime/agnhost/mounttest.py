"""`agnhost mounttest`: makes files and says of what kind they are, whose, and what is in them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping

from podplane.runtime.agnhost.common import Context, quoted, say
from podplane.runtime.agnhost.flags import Flags, Value
from podplane.runtime.agnhost.reasons import reason

CREATED = {"new_file_0644": 0o644, "new_file_0666": 0o666, "new_file_0660": 0o660, "new_file_0777": 0o777}
FLAGS: Mapping[str, Value] = {
    "fs_type": "",
    **dict.fromkeys(CREATED, ""),
    "file_mode": "",
    "file_perm": "",
    "file_owner": "",
    "file_content": "",
    "file_content_in_loop": "",
    "retry_time": 180,
    "break_on_expected_content": True,
}
CONTENT = "mount-tester new file\n"
RETRY_SECONDS = 2.0
MODE_LETTERS = (
    (stat.S_ISDIR, "d"),
    (stat.S_ISLNK, "L"),
    (lambda mode: stat.S_ISBLK(mode) or stat.S_ISCHR(mode), "D"),
    (stat.S_ISFIFO, "p"),
    (stat.S_ISSOCK, "S"),
    (lambda mode: mode & stat.S_ISUID, "u"),
    (lambda mode: mode & stat.S_ISGID, "g"),
    (stat.S_ISCHR, "c"),
    (lambda mode: mode & stat.S_ISVTX, "t"),
)
"""As Go writes a FileMode, in its order."""
TMPFS = "tmpfs"


def run(context: Context) -> int:
    """Do what the flags say, in an order that lets one command look at the file system, write and read; 1 when something failed."""
    os.umask(0)
    context.ready()
    flags = context.flags
    steps: list[tuple[str, Callable[[str], None]]] = [("fs_type", _fs_type)]
    steps += [(flag, _creator(mode)) for flag, mode in CREATED.items()]
    steps += [("file_mode", _mode), ("file_perm", _permissions), ("file_owner", _owner), ("file_content", _content)]
    failed = False
    for flag, step in steps:
        if path := flags.text(flag):
            try:
                step(path)
            except OSError as error:
                say(f"error of --{flag} {quoted(path)}: {reason(error)}")
                failed = True
    return int(not _content_in_loop(flags) or failed)


def _fs_type(path: str) -> None:
    kind = file_system(path)
    say(f"mount type of {quoted(path)}: {kind}")


def file_system(path: str) -> str:
    """The type of the file system that a path is on, as /proc/self/mountinfo names it (proc(5)): the last mount that it is below."""
    place, found = os.path.realpath(path), ""
    os.stat(place)
    longest = -1
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point = before.split()[4].encode(errors="surrogateescape").decode("unicode_escape")
            if len(point) >= longest and (place == point or place.startswith(point.rstrip("/") + "/")):
                longest, found = len(point), after.split()[0]
    return found


def _creator(mode: int) -> Callable[[str], None]:
    def create(path: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "w") as file:
            file.write(CONTENT)
        _content(path)

    return create


def written_mode(mode: int) -> str:
    """A file's mode as Go writes it: -rw-r--r--, drwxrwxrwx, dtrwxrwxrwx."""
    letters = "".join(letter for holds, letter in MODE_LETTERS if holds(mode)) or "-"
    return letters + stat.filemode(mode & 0o777)[1:]


def _mode(path: str) -> None:
    say(f"mode of file {quoted(path)}: {written_mode(os.stat(path).st_mode)}")


def _permissions(path: str) -> None:
    say(f"perms of file {quoted(path)}: {written_mode(os.stat(path).st_mode & 0o777)}")


def _owner(path: str) -> None:
    found = os.stat(path)
    say(f"owner UID of {quoted(path)}: {found.st_uid}")
    say(f"owner GID of {quoted(path)}: {found.st_gid}")


def _content(path: str) -> None:
    say(f"content of file {quoted(path)}: {_read(path)}")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _content_in_loop(flags: Flags) -> bool:
    """Read a file again and again, until it is as expected or the time is over; False when it couldn't be read in the end."""
    path, is_read = flags.text("file_content_in_loop"), True
    end = time.monotonic() + flags.number("retry_time")
    while path and time.monotonic() < end:
        try:
            content, is_read = _read(path), True
            say(f"content of file {quoted(path)}: {content}")
            if flags.on("break_on_expected_content"):
                if content == CONTENT:
                    break
                say(f"Unexpected content. Expected: {CONTENT}. Retrying")
        except OSError as error:
            say(f"Error reading file {path}: {reason(error)}, retrying")
            is_read = False
        time.sleep(RETRY_SECONDS)
    return is_read
