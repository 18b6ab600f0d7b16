"""The names of the built-in programs: a lab knows these, and only the zygote, whose forks become them, imports the programs."""

from __future__ import annotations

ECHO_IMAGE, CLIENT_IMAGE, AGNHOST_IMAGE, HOST_PREFIX = "podplane/echo", "podplane/client", "podplane/agnhost", "host/"
PROBE, ZONE = "podplane/probe", "podplane/zone"
NAMES = frozenset({ECHO_IMAGE, CLIENT_IMAGE, AGNHOST_IMAGE, PROBE, ZONE})
"""By which a container's command calls them."""
