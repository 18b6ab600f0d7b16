"""Whatever callers do, and in whatever order: each is answered, and namespaces are held for what is attached, and for nothing else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.cni import wire
from tests.unit.cni.fakes import FakeNetwork, configuration, refused, serving
from tests.unit.cni.test_server import ask, exchange, netns

__all__ = ["netns"]
OF_CALLERS = ("ADD", "ADD", "ADD", "ADD again", "ADD and go", "DEL", "DEL", "CHECK", "GC", "STATUS", "nonsense")
OF_THE_NODE = ("fail", "succeed", "wait", "go on")
steps = st.lists(st.tuples(st.sampled_from(OF_CALLERS + OF_THE_NODE), st.integers(1, 3)), max_size=25)


class Play:
    """Callers of one server, many at a time."""

    def __init__(self, path: Path, fd: int) -> None:
        self.network, self.path, self.fd = FakeNetwork(), path, fd
        self.calls: list[asyncio.Task[object]] = []

    async def act(self, verb: str, number: int) -> None:
        container = {"CNI_CONTAINERID": f"c{number}"}
        match verb:
            case "fail":
                self.network.error = refused()
            case "succeed":
                self.network.error = None
            case "wait":
                self.network.gate.clear()
            case "go on":
                self.network.gate.set()
            case "nonsense":
                self._begin(exchange(self.path, b"\0\0\0\1\1\1"[: number * 2], end=True))
            case "ADD and go":
                call = asyncio.create_task(ask(self.path, "ADD", self.fd, **container))
                await asyncio.sleep(number / 2000)
                call.cancel()
                await asyncio.wait([call])
            case "ADD again":
                self._begin(ask(self.path, "ADD", self.fd, **container, **{wire.AGAIN: "1"}))
            case "GC":
                kept = [{"containerID": f"c{number}", "ifname": "eth0"}]
                self._begin(ask(self.path, "GC", stdin=configuration(**{"cni.dev/valid-attachments": kept})))
            case _:
                fd = self.fd if verb in ("ADD", "CHECK") else None
                made = {"interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}]} if verb == "CHECK" else {}
                self._begin(ask(self.path, verb, fd, configuration(prevResult=made), **container))
        await asyncio.sleep(0)

    def _begin(self, call: object) -> None:
        self.calls.append(asyncio.create_task(call))  # type: ignore[arg-type]  # a coroutine

    async def end(self) -> None:
        self.network.gate.set()
        answers = await asyncio.gather(*self.calls)
        assert all(answer is not None for answer in answers)


async def play(fd: int, acts: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        one = Play(Path(folder, "cni.sock"), fd)
        async with serving(one.path, one.network) as server:
            before = len(os.listdir("/proc/self/fd"))
            for verb, number in acts:
                await one.act(verb, number)
            await one.end()
            while server._tasks:
                await asyncio.wait(server._tasks)
            held = server._verbs._held
            assert held.keys() == one.network.attached.keys()
            assert not server._verbs._locks
            for id_, request in one.network.attached.items():
                assert held[id_] is request.netns
            assert len(os.listdir("/proc/self/fd")) == before + len(held), "no descriptor is lost"
            for namespace in held.values():
                namespace.close()


@settings(max_examples=40)
@given(steps)
def test_namespaces_are_held_for_what_is_attached(netns: int, acts: list[tuple[str, int]]) -> None:
    asyncio.run(play(netns, acts))
