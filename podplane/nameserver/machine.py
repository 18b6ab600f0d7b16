"""The servers that the machine's own resolver asks."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from podplane.dns import config, resolv_conf

RESOLV_CONF = Path("/etc/resolv.conf")


class Machine:
    """The servers of a resolv.conf, which is read again when it changed. One that has none is looked at twice: programs empty the file,
    or take it away, before they write it anew."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._is_empty = False
        """Had it no servers when it was looked at last, and some before?"""
        self.servers: tuple[config.Upstream, ...] = ()

    def look(self) -> bool:
        """Look whether there are other servers now, and say so."""
        try:
            found = os.stat(self._path)
            stamp = found.st_mtime_ns, found.st_ino, found.st_size
            if stamp == self._stamp:
                self._is_empty = False
                return False
            servers = _servers(self._path.read_text(errors="replace"))
        except OSError:
            stamp, servers = None, ()
        self._is_empty = not servers and bool(self.servers) and not self._is_empty
        if self._is_empty:
            return False
        self._stamp, before, self.servers = stamp, self.servers, servers
        return servers != before


def _servers(text: str) -> tuple[config.Upstream, ...]:
    """The servers of a resolv.conf, each once. What is no address of one machine is left out, as the C library does."""
    found: dict[config.Upstream, None] = {}
    for ip in resolv_conf.read(text).nameservers:
        with contextlib.suppress(ValueError):
            found[config.Upstream(config.server_ip(ip))] = None
    return tuple(found)
