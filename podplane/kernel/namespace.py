"""Network namespaces: made without a fork, held by a descriptor, entered by worker threads only.

A thread's network namespace is its own (setns(2)), so entering one needs a thread that nobody else relies on. The pool's threads leave
the namespace that they began in before their first job: not one of them can touch the host's network. A job is short
and blocking: open a socket, write a sysctl, make a namespace. A socket stays in the namespace where it was opened and may
then be used by any thread.
"""

from __future__ import annotations

import functools
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from podplane.kernel import syscalls

T = TypeVar("T")
THREAD_NAMESPACE = "/proc/thread-self/ns/net"
SO_NETNS_COOKIE = 71


class Namespace(Protocol):
    """Somewhere to run a function: inside a network namespace."""

    @property
    def fd(self) -> int:
        """The descriptor that holds the namespace."""

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a short, blocking function in the namespace; its result, or its exception."""

    def close(self) -> None:
        """Let go of the namespace; idempotent."""


class Opened(Protocol):
    """What somebody else opened in a network namespace (`kernel.passed`)."""

    @property
    def cookie(self) -> int:
        """The kernel's number of it."""

    def close(self) -> None:
        """Let go of all of it; idempotent."""


class Workers:
    """A few threads that run jobs, each in the namespace that the job names."""

    def __init__(self, threads: int = 2) -> None:
        self._jobs: queue.SimpleQueue[Callable[[OSError | None], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"netns-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @functools.cached_property
    def may_enter(self) -> bool:
        """May this process enter network namespaces (CAP_SYS_ADMIN, and no filter of system calls)?"""
        return not isinstance(self.submit(bool).exception(), OSError)

    def _work(self) -> None:
        forbidden: OSError | None = None
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
        except OSError as error:
            forbidden = error
        while (job := self._jobs.get()) is not None:
            job(forbidden)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Queue a job; its outcome comes through the future."""
        future: Future[T] = Future()

        def job(forbidden: OSError | None) -> None:
            try:
                if forbidden is not None:  # this thread couldn't leave the host's namespace: nothing may run in it
                    raise forbidden
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._jobs.put(job)
        return future

    def close(self) -> None:
        """End the threads, after the jobs that are queued."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()


class NetworkNamespace:
    """One network namespace, alive as long as its descriptor or a process in it. `passed` is what somebody else opened in it: with that
    most of what is to be done there needs nobody to enter it."""

    def __init__(self, fd: int, workers: Workers, passed: Opened | None = None) -> None:
        self._fd = fd
        self._workers = workers
        self.passed = passed

    @classmethod
    def create(cls, workers: Workers) -> NetworkNamespace:
        """A new, empty namespace."""
        return cls(workers.submit(_unshare).result(), workers)

    @classmethod
    def open(cls, path: str, workers: Workers) -> NetworkNamespace:
        """The namespace that this file is. OSError when it can't be opened; what is no network namespace is refused when it is entered."""
        return cls(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), workers)

    @property
    def fd(self) -> int:
        """The descriptor that holds the namespace. ValueError when it was closed."""
        if self._fd < 0:
            raise ValueError("the network namespace was closed")
        return self._fd

    @property
    def inode(self) -> int:
        """What tells namespaces apart (the number that `lsns` shows)."""
        return os.fstat(self.fd).st_ino

    @property
    def cookie(self) -> int:
        """The kernel's number of it, which no other namespace gets as long as the machine runs: unlike an inode, which is used again."""
        return self.run(_cookie) if self.passed is None else self.passed.cookie

    @property
    def is_within_reach(self) -> bool:
        """Can anything be done in it? Not where nobody passed what that needs, and this process may not enter it."""
        return self.passed is not None or self._workers.may_enter

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a short, blocking function in the namespace; its result, or its exception."""
        future: Future[T] = self._workers.submit(_run_in, self.fd, function, *arguments)
        return future.result()

    def close(self) -> None:
        """Let go of the namespace; idempotent."""
        if self.passed is not None:
            self.passed.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_within_reach(namespace: Namespace) -> bool:
    """Can anything be done in it?"""
    return not isinstance(namespace, NetworkNamespace) or namespace.is_within_reach


def _unshare() -> int:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    return os.open(THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def _cookie() -> int:
    """SO_NETNS_COOKIE (Linux 5.14, net/core/sock.c) of a socket that is opened here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        return cookie_of(one)


def cookie_of(one: socket.socket) -> int:
    """The kernel's number of the network namespace in which a socket was opened (`NetworkNamespace.cookie`)."""
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)


def _run_in(fd: int, function: Callable[..., T], *arguments: Any) -> T:
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    return function(*arguments)


class CurrentNamespace:
    """The namespace that this process is in: for an agent alone on a real machine."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def fd(self) -> int:
        """The descriptor that holds the namespace."""
        return self._fd

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function: it is in the right place already."""
        return function(*arguments)

    def close(self) -> None:
        """Let go of the descriptor; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
