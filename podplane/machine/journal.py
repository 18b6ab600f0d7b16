"""What is attached, and what sysctls were before, in a file: an agent that is killed at any moment leaves what the next one needs.

A record is a line of JSON, appended by one write before the kernel is changed (`attach`) or after it was (`detach`). A line that was not
written to its end was not acknowledged to anybody and is ignored. Nothing is synced to a disk, because no pod survives a reboot: the file
is in /run. It is written anew when most of its lines say nothing any more.

    {"attach": {"container_id": …, "ifname": "eth0", "netns_path": "/run/netns/…", …}, "ips": […], "cookie": 4711}
    {"detach": ["…", "eth0"]}
    {"last": ["10.244.1.9"]}                                         what was allocated last, where no other record says so
    {"sysctl": "net.ipv4.ip_forward", "was": "0", "set": "1"}        what it was before podplane set it; without `was`: it is not podplane's
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from podplane.cni.additional import subnets_of
from podplane.cni.network import Attachment
from podplane.kernel.namespace import Namespace
from podplane.state.mac import asked_mac

log = logging.getLogger(__name__)
Id = tuple[str, str]
"""(container id, interface name)"""
SPARE_LINES = 256
"""So many lines that say nothing any more are kept, and as many again as say something."""
_hints = get_type_hints(Attachment)
Fields: Any = msgspec.defstruct(
    "Fields",
    [
        (one.name, _hints[one.name]) if one.default is dataclasses.MISSING else (one.name, _hints[one.name], one.default)
        for one in dataclasses.fields(Attachment)
        if one.name != "netns"
    ],
)
"""An attachment without its namespace: what is added to attachments is kept without a change here."""


class Kept(msgspec.Struct, frozen=True):
    """One attachment, its addresses, and the kernel's number of its namespace (`NetworkNamespace.cookie`; 0: not known)."""

    attach: Fields
    ips: tuple[str, ...]
    cookie: int = 0

    def __post_init__(self) -> None:
        """ValueError for addresses, a MAC or subnets that make no sense: an agent that took them would not start."""
        if not self.ips:
            raise ValueError("it has no address")
        _check_ips(self.ips)
        if self.attach.mac:
            asked_mac(self.attach.mac)
        if self.attach.further is not None:
            subnets_of(self.attach.further.subnets)

    @property
    def id(self) -> Id:
        """(container id, interface name)"""
        return (self.attach.container_id, self.attach.ifname)

    def attachment(self, netns: Namespace) -> Attachment:
        """As it was asked for, with its namespace opened again."""
        return Attachment(netns=netns, **msgspec.structs.asdict(self.attach))


class Original(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sysctl as it was before podplane `set` it."""

    sysctl: str
    was: str | None = None
    set: str = ""


class _Line(msgspec.Struct):
    """Any record, to tell which one it is."""

    attach: msgspec.Raw = msgspec.Raw()
    detach: Id | None = None
    sysctl: str = ""
    last: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """ValueError as of `Kept`."""
        _check_ips(self.last or ())


def _check_ips(ips: tuple[str, ...]) -> None:
    for ip in ips:
        ipaddress.ip_address(ip)


_lines, _kept = msgspec.json.Decoder(_Line), msgspec.json.Decoder(Kept)
_originals = msgspec.json.Decoder(Original)


class Journal:
    """The file, and what it says. Methods raise OSError when the disk takes nothing; then nothing has changed, but for what is detached:
    that is written before the next record, so that no attachment has addresses that the file gives to another one, too."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it."""
        self.path = path
        self.attachments: dict[Id, Kept] = {}
        self.last: tuple[str, ...] = ()
        """The addresses that were allocated last: of those that are free now, others are used before."""
        self.originals: dict[str, Original] = {}
        """Sysctls that are podplane's, by name, in the order in which they were set."""
        self._unsaid: list[Id] = []
        """What is detached, and not in the file."""
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._count = self._size = 0
        self._read()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def attach(self, request: Attachment, ips: tuple[str, ...], cookie: int) -> None:
        """It gets these addresses."""
        fields = Fields(**{name: getattr(request, name) for name in Fields.__struct_fields__})
        kept = Kept(fields, ips, cookie)
        with self._lock:
            self._append(kept)
            self._attached(kept)
            self._tidy()

    def _attached(self, kept: Kept) -> None:
        if kept.id not in self.attachments:
            self.last = kept.ips
        self.attachments[kept.id] = kept

    def detach(self, id_: Id) -> None:
        """It is gone; of what is not attached, nothing is written."""
        with self._lock:
            if id_ in self.attachments:
                del self.attachments[id_]
                self._unsaid.append(id_)
                self._append()
                self._tidy()

    def note(self, original: Original) -> None:
        """What a sysctl was; without `was`, it is not podplane's any more. May be called in any thread."""
        with self._lock:
            self._append(original)
            self._noted(original)
            self._tidy()

    def _noted(self, original: Original) -> None:
        if original.was is None:
            self.originals.pop(original.sysctl, None)
        else:
            self.originals[original.sysctl] = original

    def _read(self) -> None:
        content = bytearray()
        while part := os.read(self._fd, 1 << 20):
            content += part
        *lines, torn = bytes(content).split(b"\n")
        self._count, self._size = len(lines), len(content) - len(torn)
        for line in filter(None, lines):
            self._take(line)
        if torn:
            log.warning("journal path=%s the last record was not written to its end: it counts for nothing", self.path)
            os.ftruncate(self._fd, self._size)

    def _take(self, line: bytes) -> None:
        try:
            kind = _lines.decode(line)
            if kind.detach is not None:
                self.attachments.pop(kind.detach, None)
            elif kind.sysctl:
                self._noted(_originals.decode(line))
            elif kind.attach:
                self._attached(_kept.decode(line))
            elif kind.last is not None:
                self.last = kind.last
        except (msgspec.MsgspecError, RecursionError) as error:
            log.warning("journal path=%s a line that makes no sense is ignored: %s", self.path, error)

    def _append(self, *records: object) -> None:
        lines = [msgspec.json.encode(one) + b"\n" for one in (*({"detach": id_} for id_ in self._unsaid), *records)]
        self._write(self._fd, self._size, b"".join(lines))
        self._count += len(lines)
        self._unsaid.clear()

    def _tidy(self) -> None:
        if self._count > 2 * (len(self.attachments) + len(self.originals)) + SPARE_LINES:
            self.compact()

    def _write(self, fd: int, at: int, line: bytes) -> None:
        """All of it, or nothing."""
        try:
            written = os.pwrite(fd, line, at)
            if written < len(line):
                os.ftruncate(fd, at)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._size = at + len(line)

    def compact(self) -> None:
        """Write it anew, without what says nothing any more; when the disk takes no other file, this one stays."""
        draft = self.path.with_name(f"{self.path.name}.new")
        content = b"".join(self._records())
        try:
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("journal path=%s can't be written anew: %s", self.path, error.strerror)
            return
        before = self._size
        try:
            self._write(fd, 0, content)
            os.rename(draft, self.path)
        except OSError as error:
            self._size = before
            os.close(fd)
            draft.unlink(missing_ok=True)
            log.warning("journal path=%s can't be written anew: %s", self.path, error.strerror)
            return
        os.close(self._fd)
        self._fd, self._count = fd, len(self.attachments) + len(self.originals)
        self._unsaid.clear()

    def _records(self) -> Iterator[bytes]:
        for record in (*self.originals.values(), *self.attachments.values(), {"last": self.last}):
            yield msgspec.json.encode(record) + b"\n"
