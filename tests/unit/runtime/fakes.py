"""What a pod's worker talks to, in memory: a network, processes, an API, a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podplane.cni.network import Attached, Attachment, NetworkError
from podplane.kernel.process import NotYet, ProcessError


@dataclass(eq=False)
class FakeProcess:
    """A process that does as the test says."""

    argv: Sequence[str]
    id: int
    exited: asyncio.Future[int]
    refusal: str = ""
    signals: list[int] = field(default_factory=list)
    ends_on: Collection[int] = (9, 15)
    error: str = ""
    refused: bool = False
    ran: bool = True
    tells_errors: bool = True
    last_words: bytes = b""
    options: Mapping[str, Any] = field(default_factory=dict)
    silence: asyncio.Event | None = None
    """Nothing is heard of its start until this is set."""

    async def started(self) -> None:
        if self.silence is not None:
            await asyncio.sleep(0)
            if not self.silence.is_set():
                raise NotYet("the zygote has said nothing for 30 s")
        if self.refusal:
            self.error = self.refusal if self.tells_errors else ""
            if not self.exited.done():
                self.exited.set_result(127)
            raise ProcessError(self.refusal)

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if number in self.ends_on and not self.exited.done():
            self.exited.set_result(128 + number)


@dataclass
class FakeProcesses:
    """All processes that were asked for."""

    all: list[FakeProcess] = field(default_factory=list)
    refusal: str = ""
    refused: bool = False
    ran: bool = True
    tells_errors: bool = True
    ends_on: Collection[int] = (9, 15)
    silence: asyncio.Event | None = None

    def spawn(self, argv: Sequence[str], stdio: tuple[int, int, int], **options: Any) -> FakeProcess:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        process = FakeProcess(argv, len(self.all) + 1, future, self.refusal, ends_on=self.ends_on, refused=self.refused)
        process.options = options
        process.ran, process.tells_errors, process.silence = self.ran, self.tells_errors, self.silence
        self.all.append(process)
        return process


@dataclass
class FakeNetwork:
    """Addresses from a list; refuses while `refusal` says why, and answers once `silence` is over."""

    attached: list[str] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    refusal: str = ""
    silence: asyncio.Event | None = None

    async def add(self, request: Attachment) -> Attached:
        if self.silence is not None:
            await self.silence.wait()
        if self.refusal:
            raise NetworkError(self.refusal)
        self.attached.append(request.pod_uid)
        self.asked.append(request.requested_ips)
        return Attached(ips=("10.244.1.2",), interface="eth0", mac="0a:58:0a:f4:01:02")

    async def delete(self, request: Attachment) -> None:
        self.attached.remove(request.pod_uid)

    async def check(self, request: Attachment) -> None:
        return

    async def gc(self, keep: Collection[Attachment]) -> None:
        return


@dataclass
class FakeNamespace:
    """A namespace that only knows whether it is closed."""

    fd: int = 99
    closed: bool = False

    def run(self, function: Any, *arguments: Any) -> Any:
        raise AssertionError("nothing runs in a fake namespace")

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeSandbox:
    """The namespaces of a pod, which only know whether they were let go of."""

    id: int
    namespace: FakeNamespace = field(default_factory=FakeNamespace)
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeRecorder:
    """Events that were told, as (reason, message)."""

    told: list[tuple[str, str]] = field(default_factory=list)

    async def record(self, kind: str, about: Any, reason: str, message: str, *_: str) -> None:
        self.told.append((reason, message))


@dataclass
class FakeClient:
    """Statuses that were written, and objects that were deleted."""

    statuses: list[Mapping[str, Any]] = field(default_factory=list)
    deleted: list[tuple[str, int | None, str]] = field(default_factory=list)

    async def patch_own_status(self, resource: str, namespace: str, name: str, status: Mapping[str, Any], uid: str) -> None:
        self.statuses.append(_stored(status))

    async def delete(self, resource: str, namespace: str, name: str, *, grace: int | None = None, uid: str = "") -> None:
        self.deleted.append((name, grace, uid))


def _stored(patch: Mapping[str, Any]) -> dict[str, Any]:
    """What a strategic merge patch of a whole status leaves in an object that had none."""
    lists = {
        name: [_plain(one) for one in value if "$patch" not in one] for name, value in patch.items() if isinstance(value, list)
    }
    return {**patch, **lists}


def _plain(element: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in element.items() if value is not None}
