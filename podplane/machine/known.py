"""What an agent's process knows of the cluster, kept in a file: one that starts while the API is away goes on with it.

A record is a line: the resource, the path of an object and its JSON, as far as the agent reads it, with tabs between. One without JSON: it
went. Of an object the last one counts. A line that was not written to its end is ignored.

    {"node": "worker-1", "cluster": "…", "boot": "…", "models": "…"}     whose it is: else it counts for nothing
    pods                default/web   {"metadata": …}
    pods                default/web
    pods                              everything of this resource was told by now

Nothing is planned of what is not in the file (`kubeapi.informer.Keeper`), so an agent that starts with it knows of no fewer policies than
those that are in the kernel. A first list is written beside it, and takes its place when all of it is there. It is written anew when most
of it says nothing any more. When the disk takes nothing, the file is removed, because it would be behind: an agent that starts then waits
for the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from podplane import model
from podplane.kubeapi.access import Access

log = logging.getLogger(__name__)
FILE = "cluster"
BOOT = Path("/proc/sys/kernel/random/boot_id")
SPARE_BYTES = 4 << 20
"""So much that says nothing any more is kept, and as much again as says something."""
BUFFER_BYTES = 1 << 18
"""So much is written at once, at most, while lists come in."""
Objects = Mapping[str, Mapping[str, bytes]]
"""JSON of objects by resource and path."""


class Whose(msgspec.Struct, frozen=True):
    """Of whom a file is: what is of another node, cluster or boot is of no use, nor what was read of objects with other `models`."""

    node: str
    cluster: str
    boot: str
    models: str

    @classmethod
    def of(cls, node: str, access: Access) -> Whose:
        """A node of the cluster that is reached so, at present."""
        cluster = f"{access.address}{access.prefix}\n{access.ca}".encode()
        models = (path.read_bytes() for path in sorted(Path(model.__path__[0]).glob("*.py")))
        return cls(node, _digest(cluster), BOOT.read_text().strip(), _digest(b"".join(models)))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class KnownCluster:
    """`kubeapi.informer.Keeper` of a file in this folder; methods run on one event loop, and none of them raises.

    `resources` are those that are all needed.
    """

    def __init__(self, folder: Path, whose: Whose, resources: Collection[str]) -> None:
        self.path = folder / FILE
        self._whose = whose
        self._resources = frozenset(resources)
        self._missing: set[str] = set()
        """What was not listed yet; the file is a draft as long as there is any."""
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._fd = -1
        self._size = self._told = 0
        """Bytes in the file, and those of them when it was written anew last."""
        self._whole = 0
        """Bytes of the lines that were read to their ends."""
        self._compacting: asyncio.Task[None] | None = None

    @property
    def draft(self) -> Path:
        """Where a file is before it is whole."""
        return self.path.with_name(f"{FILE}.new")

    # What an agent before this one has kept.

    def read(self) -> Objects | None:
        """All objects; None when the file is not there, not whole, or of somebody else."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cluster path=%s error=%s", self.path, error.strerror)
            return None
        head, _, rest = content.partition(b"\n")
        try:
            is_ours = msgspec.json.decode(head, type=Whose) == self._whose
        except (msgspec.MsgspecError, RecursionError):
            is_ours = False
        found: dict[str, dict[str, bytes]] = {}
        listed = set[str]()
        *lines, torn = rest.split(b"\n")
        self._whole = len(content) - len(torn)
        try:
            for line in lines if is_ours else ():
                _take(line, found, listed)
        except ValueError:
            listed.clear()
        if not self._resources <= listed:
            log.info("cluster path=%s it is of no use here", self.path)
            return None
        return {resource: found.get(resource, {}) for resource in self._resources}

    # Keeping.

    def begin(self) -> None:
        """Keep what is told from now on, from nothing: all is listed anew."""
        self._end()
        self._missing = set(self._resources)
        self._open(self.draft, os.O_CREAT | os.O_TRUNC)
        self._add(msgspec.json.encode(self._whose) + b"\n")
        self.flush()

    def resume(self) -> None:
        """Go on with the file that was read."""
        self._end()
        self._missing = set()
        self.draft.unlink(missing_ok=True)
        self._open(self.path, 0)
        if self._fd >= 0:
            os.ftruncate(self._fd, self._whole)
            self._size = self._told = self._whole

    def put(self, resource: str, path: str, content: bytes) -> None:
        """An object came or changed."""
        if resource in self._resources:
            self._add(b"%s\t%s\t%s\n" % (resource.encode(), path.encode(), content))

    def remove(self, resource: str, path: str) -> None:
        """It went."""
        self.put(resource, path, b"")

    def listed(self, resource: str) -> None:
        """What was told of this resource is all that there is."""
        if resource not in self._missing:
            return
        self._add(b"%s\t\t\n" % resource.encode())
        self.flush()
        self._missing.discard(resource)
        if not self._missing and self._fd >= 0:
            self._told = self._size
            try:
                self.draft.rename(self.path)
            except OSError as error:
                self._failed(error)

    def flush(self) -> None:
        """Write what was told."""
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        try:
            _write(self._fd, data, self._size)
        except OSError as error:
            self._failed(error)
            return
        self._size += len(data)
        if not self._missing and self._size > 2 * self._told + SPARE_BYTES and self._compacting is None:
            self._compacting = asyncio.get_running_loop().create_task(self._compact(), name="write cluster anew")

    def close(self) -> None:
        """Let go of the file."""
        self.flush()
        self._end()

    def _add(self, line: bytes) -> None:
        if self._fd < 0:
            return
        self._buffer.append(line)
        self._buffered += len(line)
        if self._buffered > BUFFER_BYTES:
            self.flush()

    def _open(self, path: Path, flags: int) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
            self._size = self._told = os.fstat(self._fd).st_size
        except OSError as error:
            self._failed(error)

    def _end(self) -> None:
        if self._compacting is not None:
            self._compacting.cancel()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._buffer.clear()
        self._buffered = 0

    def _failed(self, error: OSError) -> None:
        """It would be behind: without it, an agent that starts while the API is away does not take old policies for the present ones."""
        log.warning("cluster path=%s error=%s: it is not kept any more", self.path, error.strerror)
        self._end()
        for path in (self.path, self.draft):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    # Writing it anew.

    async def _compact(self) -> None:
        try:
            until = self._size
            size = await asyncio.to_thread(_write_anew, self.path, self.draft, until)
            fd = os.open(self.draft, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                since = os.pread(self._fd, self._size - until, until)
                _write(fd, since, size)
                self.draft.rename(self.path)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            log.warning("cluster path=%s can't be written anew: %s", self.path, error.strerror)
            self._told = self._size  # not again at once
            with contextlib.suppress(OSError):
                self.draft.unlink(missing_ok=True)
        else:
            os.close(self._fd)
            self._fd, self._told, self._size = fd, size, size + len(since)
        finally:
            self._compacting = None


def _take(line: bytes, found: dict[str, dict[str, bytes]], listed: set[str]) -> None:
    """ValueError when it is no record."""
    names, _, content = line.rpartition(b"\t")
    resource, tab, path = names.decode().partition("\t")
    if not tab:
        raise ValueError("a record has two tabs")
    if not path:
        listed.add(resource)
    elif content:
        found.setdefault(resource, {})[path] = content
    else:
        found.get(resource, {}).pop(path, None)


def _write(fd: int, data: bytes, at: int) -> None:
    """All of it. OSError when that can't be."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def _write_anew(path: Path, draft: Path, until: int) -> int:
    """Write what the file says up to there, each object once; the size of that. OSError when the disk takes nothing.

    It is read twice: where the last line of each object is, and these lines. All of them at once would be as large as the file.
    """
    last: dict[bytes, int] = {}
    for at, key, line in _lines(path, until):
        last.pop(key, None)
        if not line.endswith(b"\t\n") or key.endswith(b"\t"):
            last[key] = at
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as new:
        with path.open("rb") as file:
            size = new.write(file.readline())
        return size + sum(new.write(line) for at, key, line in _lines(path, until) if last.get(key) == at)


def _lines(path: Path, until: int) -> Iterator[tuple[int, bytes, bytes]]:
    """The records of a file up to there: where each is, what it is about, and itself."""
    with path.open("rb") as file:
        at = len(file.readline())
        while at < until and (line := file.readline()):
            yield at, line[: line.index(b"\t", line.index(b"\t") + 1)], line
            at += len(line)
