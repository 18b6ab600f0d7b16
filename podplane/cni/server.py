"""The socket by which CNI plugins ask the agent of their node (`cni.wire` says what goes over it).

Only root of this user namespace is served. What it sends is a stranger's all the same: it has a size, a time to arrive, and so many callers
are seen to at once; others wait in the socket's queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from podplane.cni import wire
from podplane.cni.call import Id
from podplane.cni.errors import CniError, Code
from podplane.cni.network import NodeNetwork
from podplane.cni.result import NEWEST
from podplane.cni.socket_path import reachable
from podplane.cni.verbs import Verbs, failed
from podplane.kernel.namespace import Namespace, Workers

log = logging.getLogger(__name__)
CALLERS = 1024
"""Connections at one time."""
QUEUE = 4096
"""Connections that wait in the socket; the kernel may make less of it (net.core.somaxconn)."""
ACCEPTED_AT_ONCE = 32
"""In a turn of the event loop."""
READ_SECONDS, WRITE_SECONDS = 5.0, 5.0
"""So long a request may take to arrive, and a caller to take its answer."""
CHUNK_BYTES = 1 << 16
MOST_DESCRIPTORS = 4
PAUSE_SECONDS = 1.0
"""After which connections are accepted again when the machine was short of something."""


class Server:
    """Serves a network at a socket, from `start` to `close`; its methods run on one event loop.

    `node` is the namespace of the node itself, `held` the network namespaces of what was attached before: they are closed when it is
    detached. `user` is who may ask.
    """

    def __init__(
        self, network: NodeNetwork, node: Namespace, workers: Workers, held: Mapping[Id, Namespace] | None = None, user: int = 0
    ) -> None:
        self._user = user
        self._verbs = Verbs(network, node, workers, held or {})
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._path = Path()
        self._inode = 0
        self._is_full = False

    def start(self, path: str | Path) -> None:
        """Listen there; what is there already, a dead agent's socket, is replaced. OSError when that can't be."""
        self._path = Path(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        made = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            with contextlib.suppress(FileNotFoundError):
                made.unlink()
            with reachable(made) as short:
                listener.bind(short)
            made.chmod(0o600)
            listener.listen(QUEUE)
            self._inode = made.stat().st_ino
            made.rename(self._path)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    async def close(self) -> None:
        """Serve nobody any more; calls that are under way are finished first. The socket's file goes unless it is another's by now."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._listener.close()
        self._listener = None
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._listener is None:
                return
            if len(self._tasks) >= CALLERS:
                self._is_full = True
                asyncio.get_running_loop().remove_reader(self._listener)
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNABORTED:
                    self._pause(error)
                return
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _pause(self, error: OSError) -> None:
        log.warning("no connections are taken for %g s: %s", PAUSE_SECONDS, error)
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            loop.remove_reader(self._listener)
        loop.call_later(PAUSE_SECONDS, self._resume)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._is_full:
            self._is_full = False
            self._resume()

    def _resume(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _serve(self, connection: socket.socket) -> None:
        received: list[int] = []
        descriptors: dict[str, int] = {}
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await _receive(connection, received)
            _check_peer(connection, self._user)
            request = wire.parse(body)
            _name(request.env.get(wire.FDS, ""), received, descriptors)
            await self._verbs.answer(request, descriptors, lambda data: _deliver(connection, data))
        except CniError as error:
            await _deliver(connection, failed(error, NEWEST))
        except TimeoutError:
            await _deliver(
                connection, failed(CniError(Code.IO_FAILURE, f"no whole request came in {READ_SECONDS:g} s"), NEWEST)
            )
        except OSError as error:
            log.debug("connection error=%s", error)
        except Exception:
            log.exception("connection")
        finally:
            _close(connection)
            for fd in (*received, *descriptors.values()):
                os.close(fd)


def _name(names: str, received: list[int], descriptors: dict[str, int]) -> None:
    """Put what was received into `descriptors`, as far as it is known what it is."""
    for name, fd in zip(names.split(","), tuple(received), strict=False):
        if name in wire.DESCRIPTORS and name not in descriptors:
            descriptors[name] = fd
            received.remove(fd)


def _close(connection: socket.socket) -> None:
    """Close it. What was not read would have the peer told of a reset in place of the answer's end (unix_release_sock of the kernel)."""
    with contextlib.suppress(OSError):
        for _ in range(wire.REQUEST_BYTES // CHUNK_BYTES):
            if not connection.recv(CHUNK_BYTES):
                break
    connection.close()


def _check_peer(connection: socket.socket, user: int) -> None:
    """CniError unless the peer is this user, as ids are here: root of another user namespace has another id."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != user:
        log.warning("refused pid=%d uid=%d: only user %d may ask", pid, uid, user)
        raise CniError(Code.REFUSED, f"only user {user} may ask the agent, not user {uid}")


async def _receive(connection: socket.socket, received: list[int]) -> bytes:
    """The request without its length; descriptors that come with it are appended to `received`."""
    data, length = bytearray(), -1
    while length < 0 or len(data) < wire.LENGTH.size + length:
        chunk = await _receive_some(connection, received)
        if not chunk:
            raise CniError(Code.IO_FAILURE, "the request ended too early")
        data += chunk
        if length < 0 and len(data) >= wire.LENGTH.size:
            length = wire.length_of(data)
    if len(data) > wire.LENGTH.size + length:
        raise CniError(Code.IO_FAILURE, "more came than a request")
    return bytes(memoryview(data)[wire.LENGTH.size :])


async def _receive_some(connection: socket.socket, received: list[int]) -> bytes:
    while True:
        try:
            data, fds, flags, _ = socket.recv_fds(connection, CHUNK_BYTES, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            await _until_readable(connection)
            continue
        received += fds
        if flags & socket.MSG_CTRUNC or len(received) > MOST_DESCRIPTORS:
            raise CniError(Code.IO_FAILURE, f"more than {MOST_DESCRIPTORS} descriptors came")
        return data


async def _until_readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _deliver(connection: socket.socket, data: bytes) -> bool:
    """Send an answer; False when the peer does not take it."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await asyncio.get_running_loop().sock_sendall(connection, data)
    except (OSError, TimeoutError):
        return False
    return True
