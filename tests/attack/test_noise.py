"""Commands of probes that write without end: nobody reads more of that than a little at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from podplane.kernel.rights import Rights
from podplane.model.objects import Metadata
from podplane.model.pod import Container
from podplane.runtime import exec as exec_module
from podplane.runtime.exec import CommandExecution, run_to_end
from tests.kernel.test_zygote import PATH, Machine, contained

pytestmark = pytest.mark.kernel


@contained
async def test_a_probe_that_writes_without_end_takes_little_of_the_loop(machine: Machine) -> None:
    container = await machine.running()
    pod = SimpleNamespace(
        netns=machine.netns,
        sandbox=None,
        processes=machine.processes,
        hostname="",
        null=machine.null,
        pod=SimpleNamespace(metadata=Metadata(name="web", namespace="default")),
        rights=lambda _: Rights(),
    )
    spec = Container("main", image="host/yes")
    run = SimpleNamespace(process=container, is_alive=True, environment=PATH, spec=spec)
    pieces, real = [], CommandExecution.output

    async def counted(self: CommandExecution) -> AsyncIterator[tuple[int, bytes]]:
        async for piece in real(self):
            pieces.append(len(piece[1]))
            yield piece

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandExecution, "output", counted)
        with pytest.raises(TimeoutError):
            await run_to_end(cast(Any, pod), cast(Any, run), ["yes"], 0.5)
    assert len(pieces) <= 0.5 / exec_module.REST_SECONDS + 10
    assert await machine.says("echo fine", join=container.id) == "fine"
