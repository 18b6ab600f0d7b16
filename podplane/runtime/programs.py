"""The built-in programs: what runs without an image or a command of the machine."""

from __future__ import annotations

from collections.abc import Mapping

from podplane.kernel.zygote import Program
from podplane.runtime import echo, probe

ECHO_IMAGE, PROBE, HOST_PREFIX = "podplane/echo", "podplane/probe", "host/"
PROGRAMS: Mapping[str, Program] = {ECHO_IMAGE: echo.main, PROBE: probe.main}
"""By the name that a container's image or a command calls them."""
