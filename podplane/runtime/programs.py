"""The built-in programs: what runs without a command of the machine."""

from __future__ import annotations

from collections.abc import Mapping

from podplane.kernel.zygote_child import Program
from podplane.runtime import agnhost, client, echo, probe, zone
from podplane.runtime.program_names import AGNHOST_IMAGE, CLIENT_IMAGE, ECHO_IMAGE, PROBE, ZONE

PROGRAMS: Mapping[str, Program] = {
    ECHO_IMAGE: echo.main,
    CLIENT_IMAGE: client.main,
    AGNHOST_IMAGE: agnhost.main,
    PROBE: probe.main,
    ZONE: zone.main,
}
"""By the name that a container's command calls them."""
