"""One of several processes leads, as long as it renews a Lease (coordination.k8s.io/v1). It writes nothing when another one begins.

    candidate ── the Lease has no holder, or was not renewed for its duration ──► acquires it ──► leads
    leader    ── an older version of it is there than was ─► the store was restored from a backup: it begins anew
    leader    ── renews it RENEWALS times in its duration ── not renewed for DEADLINE of it ──► writes nothing more, a candidate again
              ── told to end ──► ends what it does, and leaves the Lease without a holder: another one need not wait

Each measures by its own clock, which goes on while the machine is suspended: the leader from when it sent the last renewal that was
written, a candidate from when it saw the Lease change last. So the leader stops before anybody else begins, whatever becomes of its
requests (client-go, tools/leaderelection). A write of the Lease names the version that it is of, so only one of several candidates gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.currency import number
from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, NotFound
from podplane.kubeapi.messages import Answer, Handler, Request
from podplane.kubeapi.retry import FailureLog
from podplane.kubeapi.supervise import end
from podplane.model.lease import Lease

log = logging.getLogger(__name__)
LEASES, NAMESPACE, NAME = "leases.coordination.k8s.io", "kube-system", "podplane-controllers"
DURATION_SECONDS, LONGEST_SECONDS = 10, 60
"""The usual duration of the Lease; nobody is waited for any longer, whatever the Lease says of its duration."""
RENEWALS, DEADLINE = 5, 0.6
"""Renewals within the duration of the Lease; the part of it after which a leader that could not renew it stops."""
RELEASE_SECONDS = 2.0


def boot_clock() -> float:
    """Seconds that also pass while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leadership:
    """The part of one process in the election. `client` writes the Lease, and nothing else."""

    def __init__(
        self,
        client: Client,
        identity: str,
        now: Callable[[], datetime.datetime],
        duration: int = DURATION_SECONDS,
        clock: Callable[[], float] = boot_clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self.identity, self._now, self._clock, self._sleep = client, identity, now, clock, sleep
        self._duration = duration
        self._until = 0.0
        self._lease: Lease | None = None
        self._is_writing = False
        self._changed_at, self._is_known = clock(), False
        self._failures = FailureLog(log, "leadership")

    @property
    def seconds_left(self) -> float:
        """For how long this process leads by what it knows now; 0 or less: it does not."""
        return self._until - self._clock()

    @property
    def holder(self) -> str:
        """Who holds the Lease, as far as is known; "" for nobody."""
        return self._lease.holder if self._lease is not None else ""

    async def run(self, lead: Callable[[], Awaitable[object]]) -> None:
        """Lead whenever it is this one's turn, until cancelled; `lead` is cancelled when that ends."""
        try:
            while True:
                while not await self._acquire():
                    await self._sleep(self._duration / RENEWALS)
                log.warning("leading identity=%s", self.identity)
                await self._led(lead)
                self._until = 0.0
                log.warning("leading no more identity=%s holder=%s", self.identity, self.holder or "none")
        finally:
            await self._release()

    async def _led(self, lead: Callable[[], Awaitable[object]]) -> None:
        """Have it lead until the Lease is lost, or it ends by itself."""
        tasks = [asyncio.ensure_future(one) for one in (_result(lead), self._keep())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        for task in done:
            if error := task.exception():
                log.error("leading identity=%s ended", self.identity, exc_info=error)
                await self._sleep(1.0)

    async def _keep(self) -> None:
        """Renew the Lease until it is lost."""
        while self.seconds_left > 0:
            await self._sleep(min(self._duration / RENEWALS, max(self.seconds_left, 0.0)))
            if not await self._renew():
                return

    async def _acquire(self) -> bool:
        """Try to become the leader; is it?"""
        try:
            async with asyncio.timeout(self._duration * DEADLINE):
                self._see(await self._read())
                if not self._is_free():
                    return False
                return await self._write(is_new=True)
        except (ApiError, TimeoutError) as error:
            self._failures.note(f"acquire {type(error).__name__}", error, time.monotonic())
            return False

    def _is_free(self) -> bool:
        """Has nobody the Lease, or nobody any more?"""
        lease = self._lease
        if lease is None:  # who has it may find out only with the next renewal that it was deleted
            return not self._is_known or self._clock() - self._changed_at >= self._duration
        if lease.holder in ("", self.identity):
            return True
        said = lease.spec.lease_duration_seconds or self._duration
        return self._clock() - self._changed_at >= min(said, max(LONGEST_SECONDS, self._duration))

    async def _renew(self) -> bool:
        """Renew the Lease; False when somebody else has it, or nobody could be asked until it was lost."""
        try:
            async with asyncio.timeout(min(max(self.seconds_left, 0.0), self._duration * DEADLINE / 2)):
                if await self._write(is_new=False):
                    return True
                known = number(_version(self._lease))
                self._see(await self._read())  # written by somebody, or by a request whose answer was lost, or deleted
                if 0 < number(_version(self._lease)) < known:
                    log.warning("the API's store was restored from a backup: all is listed again")
                    return False
                return self.holder in ("", self.identity) and await self._write(is_new=not self.holder)
        except (ApiError, TimeoutError) as error:
            self._failures.note(f"renew {type(error).__name__}", error, time.monotonic())
            return self.seconds_left > 0

    async def _read(self) -> Lease | None:
        try:
            return msgspec.convert(await self._client.get(LEASES, NAMESPACE, NAME), Lease)
        except NotFound:
            return None

    def _see(self, lease: Lease | None) -> None:
        """The Lease is like this now."""
        if _version(lease) != _version(self._lease):
            self._changed_at = self._clock()
        self._is_known = self._is_known or lease is not None
        self._lease = lease

    async def _write(self, *, is_new: bool) -> bool:
        """Write the Lease that was seen last, as its holder; False when it is another one by now. ApiError, TimeoutError."""
        sent, timestamp = self._clock(), self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._duration,
            "renewTime": timestamp,
        }
        if is_new:
            spec["acquireTime"] = timestamp
        self._is_writing = True  # until it is known what became of that
        try:
            written = await self._put(spec)
        except (AlreadyExists, Conflict, NotFound):
            self._is_writing = False
            return False
        self._is_writing = False
        self._see(msgspec.convert(written, Lease))
        self._until = sent + self._duration * DEADLINE
        return True

    async def _put(self, spec: dict[str, Any]) -> dict[str, Any]:
        lease = self._lease
        if lease is None:
            return await self._client.create(LEASES, NAMESPACE, {"metadata": {"name": NAME}, "spec": spec})
        metadata = {"resourceVersion": lease.metadata.resource_version}
        body = {"metadata": metadata, "spec": spec}
        return await self._client.patch(LEASES, NAMESPACE, NAME, body, uid=lease.metadata.uid)

    async def _release(self) -> None:
        """Leave the Lease without a holder, if this one has it: nothing that it began goes on."""
        self._until = 0.0
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                if self._is_writing:
                    self._see(await self._read())
                while self.holder == self.identity:
                    try:
                        self._see(msgspec.convert(await self._put({"holderIdentity": ""}), Lease))
                    except Conflict:  # a renewal was on its way when this one was told to end
                        self._see(await self._read())


def _version(lease: Lease | None) -> str:
    return lease.metadata.resource_version if lease is not None else ""


async def _result(lead: Callable[[], Awaitable[object]]) -> None:
    await lead()


class Fence:
    """A `Handler` by which a process writes only as long as it leads; a request that is not answered until then is given up."""

    def __init__(self, handler: Handler, leadership: Leadership) -> None:
        self._handler, self._leadership = handler, leadership

    async def __call__(self, request: Request) -> Answer:
        """Send a request. ApiError with code 503 for a write by who does not lead."""
        if request.method == "GET":
            return await self._handler(request)
        if (left := self._leadership.seconds_left) <= 0:
            raise ApiError(503, "ServiceUnavailable", "the Lease of this process ended: it writes nothing")
        try:
            async with asyncio.timeout(left):
                return await self._handler(request)
        except TimeoutError:
            raise ApiError(
                503, "ServiceUnavailable", "the API has not answered before the Lease of this process ended"
            ) from None
