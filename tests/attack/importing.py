"""A zygote with a program that imports a module when it runs: before it says that it does, and after."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping

from podplane.kernel.zygote import Zygote
from podplane.kernel.zygote_child import Ready

MODULES = ("colorsys", "tabnanny")


def program(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Say which of the modules could be imported when."""
    before, after = MODULES
    try:
        importlib.import_module(before)
        print("before", flush=True)
    except ModuleNotFoundError:
        pass
    ready()
    importlib.import_module(after)
    print("after", flush=True)
    return 0


def main(fd: int) -> None:
    """Serve."""
    Zygote(socket.socket(fileno=fd), {"importing": program}).run()
