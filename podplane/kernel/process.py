"""Where processes come from, as who wants some sees it: what is asked goes out at once, what happens comes back as futures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from podplane.kernel.cgroups import Group
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kernel.volumes import Tmpfs


class ProcessError(Exception):
    """The process couldn't be started; one line that says why."""


class NotYet(ProcessError):
    """Nothing has been heard for so long that its start is awaited no longer; it may come all the same, and can be awaited again."""


class Process(Protocol):
    """A process that was asked for."""

    @property
    def id(self) -> int:
        """The number by which others join it; never used twice."""

    @property
    def exited(self) -> asyncio.Future[int]:
        """Its exit code, once it ended (127 no such command, 126 not executable, 128 + n by signal n)."""

    @property
    def error(self) -> str:
        """Why it couldn't be started, "" when it could (or it isn't known yet)."""

    @property
    def refused(self) -> bool:
        """Couldn't it be started because what its volumes shall give is not there?"""

    @property
    def ran(self) -> bool:
        """Did its program run?"""

    @property
    def last_words(self) -> bytes:
        """Once it ended: the beginning of its termination message."""

    async def started(self) -> None:
        """Wait until its program runs. ProcessError when that can't be, NotYet when nothing is heard of it."""

    def signal(self, number: int) -> None:
        """Send a signal; of a process that ended, nothing happens."""


class Sandbox(Protocol):
    """Namespaces that were asked for."""

    @property
    def id(self) -> int:
        """The number by which processes are started in it."""

    async def netns(self) -> int:
        """A descriptor of its network namespace, which the caller closes, but not before it releases the sandbox; to be asked once.

        OSError when there can be none.
        """

    def release(self) -> None:
        """Let go of it: what runs in it keeps its namespaces. Idempotent."""


class Mounts(Protocol):
    """File systems for volumes of a pod that were asked for."""

    @property
    def id(self) -> int:
        """The number by which processes see them."""

    async def made(self) -> None:
        """Wait until they are there. OSError when that can't be."""

    def release(self) -> None:
        """Let go of them: what runs and sees them keeps them. Idempotent."""


class Processes(Protocol):
    """Where processes come from: the zygote, or a fake."""

    def make_sandbox(self, user: int = 0, group: int = 0) -> Sandbox:
        """Ask for the namespaces of a pod (`kernel.sandbox`). Processes may be asked for in it at once."""

    def make_mounts(self, tmpfs: Sequence[Tmpfs]) -> Mounts:
        """Ask for file systems for the volumes of a pod; only its processes see them."""

    def spawn(
        self,
        argv: Sequence[str],
        stdio: tuple[int, int, int],
        *,
        netns: int = -1,
        join: int = 0,
        env: Mapping[str, str] | None = None,
        hostname: str = "",
        directory: str = "/",
        terminal: Callable[[int], None] | None = None,
        root: Root | None = None,
        program: str = "",
        sandbox: int = 0,
        rights: Rights = Rights(),  # noqa: B008  # it is immutable
        mounts: int = 0,
        group: Group | None = None,
        oom: int = 0,
        pids: int = 0,
    ) -> Process:
        """Ask for a process in new mount and PID namespaces and in those of `sandbox`, or in those of `join`.

        Without either it gets a UTS namespace, and the network namespace `netns`.

        With a `root` it has a file system of its own, whose sources may lie in `mounts`. `program` is the built-in program to run, if
        `argv` doesn't begin with its name.

        `group` are its control groups, `oom` is its `oom_score_adj`; what joins it has these too. With `pids` it is among the processes of
        that container, which may see it, and has all else of its own.

        With `terminal` its streams are a new terminal of the container, not `stdio`; it is called, when the program runs, with a descriptor
        of the other end, which is then the callee's.

        The descriptors may be closed when this returns.
        """
