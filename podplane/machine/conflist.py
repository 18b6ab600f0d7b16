"""Tells container engines of the network when it takes pods for the first time: a node counts as ready as soon as they see the file.

    agent ready, its Node has a block ──► 10-podplane.conflist in `cni_conf_dir` ──► it stays, whatever becomes of the agent

It is never removed while podplane is installed: without it engines end no pod either. That an agent is away they learn by STATUS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from podplane.cni import install
from podplane.cni.install import InstallError

log = logging.getLogger(__name__)
LOOK_SECONDS, RETRY_SECONDS = 0.25, 10.0
"""From one look whether pods can be attached to the next; from one try to write the file to the next."""


class NetworkFile:
    """The file in one folder; `unready` says why no pod can be attached, None when pods can, and `tell` is told what is in the way."""

    def __init__(self, folder: Path, unready: Callable[[], object | None], tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._unready = unready
        self._tell = tell

    async def run(self) -> None:
        """Write it as soon as that is due; then nothing, until cancelled."""
        while self._unready() is not None:  # noqa: ASYNC110  # nobody tells of that, and it is soon
            await asyncio.sleep(LOOK_SECONDS)
        told = ""
        while why := await asyncio.to_thread(self._write):
            if why != told:
                told = why
                log.warning("network file: %s", why)
                self._tell(f"container engines are not told of the network: {why}")
            await asyncio.sleep(RETRY_SECONDS)
        await asyncio.get_running_loop().create_future()

    def _write(self) -> str:
        """Write it, unless it is there; why that can't be done, "" when it is."""
        try:
            log.info("network file: %s", install.configure(self._folder))
        except InstallError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return ""
