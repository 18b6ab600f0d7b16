"""Tells container engines of the network when it takes pods for the first time: a node counts as ready as soon as they see the file.

    agent ready, its Node has a block ──► 10-podplane.conflist in `cni_conf_dir` ──► it stays, whatever becomes of the agent
    every ten seconds ──► is it there, and first? Another network that comes first is told, or moved aside (`cni_replace`)

It is never removed while podplane is installed: without it engines end no pod either. That an agent is away they learn by STATUS. What
others chain to it stays (`cni.networks`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from podplane.cni.networks import InstallError, configure

log = logging.getLogger(__name__)
LOOK_SECONDS, RETRY_SECONDS = 0.25, 10.0
"""From one look whether pods can be attached to the next; from one look at the folder to the next."""


class Seen(NamedTuple):
    """What was done, a line about each file, and what is in the way, "" for nothing."""

    lines: tuple[str, ...] = ()
    problem: str = ""


class NetworkFile:
    """The file in one folder; `unready` says why no pod can be attached, None when pods can; `tell` is told what is in the way, and what
    was moved aside because `replace` says so."""

    def __init__(
        self, folder: Path, unready: Callable[[], object | None], tell: Callable[[str], None], *, replace: bool = False
    ) -> None:
        self._folder = folder
        self._unready = unready
        self._tell = tell
        self._replace = replace
        self.is_there = False
        """Are engines told?"""

    async def run(self) -> None:
        """Write it as soon as that is due, and see that it stays so, until cancelled."""
        while self._unready() is not None:  # noqa: ASYNC110  # nobody tells of that, and it is soon
            await asyncio.sleep(LOOK_SECONDS)
        seen = Seen()
        while True:
            former, seen = seen, await asyncio.to_thread(self._look)
            self._say(former, seen)
            self.is_there = not seen.problem
            await asyncio.sleep(RETRY_SECONDS)

    def _say(self, former: Seen, seen: Seen) -> None:
        for line in seen.lines:
            if line not in former.lines:
                log.info("network file: %s", line)
            if line.startswith("moved"):
                self._tell(f"container engines use podplane's network from now on: {line}")
        if seen.problem and seen.problem != former.problem:
            log.warning("network file: %s", seen.problem)
            self._tell(f"container engines do not use podplane's network: {seen.problem}")

    def _look(self) -> Seen:
        """Write it, unless it is there."""
        try:
            return Seen(tuple(configure(self._folder, replace=self._replace)))
        except InstallError as error:
            return Seen(problem=str(error))
        except OSError as error:
            return Seen(problem=f"{error.filename}: {error.strerror}")
