"""Makes and undoes the faults of one node, as annotations of the Node ask for them.

The answers are written with a client of the lab, not the node's: the node may be cut from the API. Requests are carried out
one after the other. When a lab starts, nothing is active, whatever the annotations of its last run say.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from podplane.kernel.errors import KernelError
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.lab.faults import messages
from podplane.lab.faults.actions import ACTIONS, Target
from podplane.lab.faults.arguments import FaultError, seconds_of
from podplane.lab.faults.messages import Active, Answer, Request
from podplane.lab.faults.table import BY_NAME, CLEAR, POWER_OFF, Fault
from podplane.model.config import ACTIVE_FAULTS
from podplane.model.objects import Node

log = logging.getLogger(__name__)
END = "the time is over: "


@dataclass(slots=True, eq=False)
class FaultControl:
    """The faults of one node; `node` is its object when the lab starts. Its methods run on one event loop."""

    target: Target
    client: Client
    now: Callable[[], datetime.datetime]
    node: Node
    active: dict[str, Active] = field(default_factory=dict)
    _seen: Request | None = None
    _answers: list[Answer] = field(default_factory=list)
    _requests: asyncio.Queue[Request | None] = field(default_factory=asyncio.Queue)
    """None: write once more what is active."""
    _timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = self._request_of(self.node)

    def node_changed(self, node: Node) -> None:
        """The node's object changed, or is another one: is something asked for?"""
        if node.metadata.uid != self.node.metadata.uid and self.active:
            self._requests.put_nowait(None)
        self.node = node
        request = self._request_of(node)
        if request is not None and request != self._seen:
            self._seen = request
            self._requests.put_nowait(request)

    def _request_of(self, node: Node) -> Request | None:
        try:
            return messages.request_of(node.metadata.annotations)
        except ValueError as error:
            log.warning("fault node=%s request=%s", node.metadata.name, error)
            return None

    async def run(self) -> None:
        """Carry out requests until cancelled."""
        if not self.active and ACTIVE_FAULTS in self.node.metadata.annotations:
            await self._write(messages.active_body([]))
        while True:
            request = await self._requests.get()
            if request is not None:
                self._answers = [*self._answers, await self._answer(request)][-messages.ANSWERS :]
            await self._write(messages.active_body(list(self.active.values())))
            await self._write(messages.answers_body(self._answers))

    async def _answer(self, request: Request) -> Answer:
        try:
            return Answer(request.id, done=await self._carry_out(request))
        except (FaultError, LabError, KernelError, OSError) as error:
            return Answer(request.id, error=str(error))
        except Exception as error:
            log.exception("fault node=%s %s", self.target.name, request.fault)
            return Answer(request.id, error=f"unforeseen: {error!r}")

    async def _carry_out(self, request: Request) -> str:
        if request.fault == CLEAR:
            return await self._clear(request.argument)
        fault = BY_NAME.get(request.fault)
        if fault is None:
            raise FaultError(f"this lab knows no fault {request.fault!r}")
        return await self._make(fault, request.argument)

    async def _make(self, fault: Fault, argument: str) -> str:
        if fault.name in self.active:
            raise FaultError(f"{fault.name} is active on {self.target.name} already: clear it first")
        for name in (*fault.not_during, POWER_OFF):
            if name in self.active:
                raise FaultError(f"{name} is active on {self.target.name}: clear it first")
        fault.refuse(argument)
        done = await ACTIONS[fault.name].make(self.target, argument)
        if fault.undo:
            self._activate(fault, argument)
        return done

    def _activate(self, fault: Fault, argument: str) -> None:
        seconds = seconds_of(argument) if argument and fault.check is seconds_of else 0.0
        now = self.now()
        until = _time(now + datetime.timedelta(seconds=seconds)) if seconds else ""
        self.active[fault.name] = Active(fault.name, _time(now), until, "" if seconds else argument)
        if seconds:
            self._timers[fault.name] = asyncio.get_running_loop().call_later(seconds, self._end, fault.name)

    def _end(self, name: str) -> None:
        """The time of a fault is over."""
        active = self.active.get(name)
        if active is not None:
            self._requests.put_nowait(Request(END + active.since, CLEAR, name))

    async def _clear(self, only: str) -> str:
        """Undo one fault, or all that are active, the latest first; a machine boots when all else is well."""
        done = []
        for name in sorted((name for name in reversed(self.active) if only in ("", name)), key=POWER_OFF.__eq__):
            undo = ACTIONS[name].undo
            if undo is not None:
                done.append(await undo(self.target))
            del self.active[name]
            if timer := self._timers.pop(name, None):
                timer.cancel()
        return " ".join(done) or f"No fault is active on {self.target.name}."

    async def _write(self, body: dict[str, object]) -> None:
        try:
            await self.client.patch("nodes", "", self.node.metadata.name, body, uid=self.node.metadata.uid)
        except ApiError as error:
            log.warning("fault node=%s answer=%s", self.target.name, error)


def _time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
