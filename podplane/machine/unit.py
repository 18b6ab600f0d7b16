"""The systemd unit of an agent. Pure.

`Type=notify` and the watchdog: see `machine.notify`. What the agent has in the kernel stays when it stops, and so does its folder in
/run, which has the journal of what is attached. It has no right that it does not need: the CNI plugin, which the engine runs, opens in
pods' network namespaces what the agent works with there, and the manager keeps that over restarts (`FileDescriptorStoreMax`). A command
and files below /home are seen; sysctls of the network have to be written, so /proc/sys stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from podplane.machine.capabilities import NEEDED

NAME = "podplane-agent.service"
WATCHDOG_SECONDS = 30
PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)
"""Words that mean themselves."""
VARIABLE = "$"
ESCAPES = {"\\": r"\\", '"': r"\"", "%": "%%", VARIABLE: "$$", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
TEXT = """[Unit]
Description=podplane: the cluster network of this node
Documentation=man:systemd.service(5)
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=always
RestartSec=100ms
TimeoutStartSec=infinity
TimeoutStopSec=20s
WatchdogSec={watchdog}s
RuntimeDirectory={folder}
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
KillMode=process
OOMScoreAdjust=-900
LimitNOFILE=1048576
FileDescriptorStoreMax=16384
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
ProtectSystem=strict
{paths}ProtectHome=read-only
PrivateDevices=yes
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def quoted(word: str, as_it_is: str = "") -> str:
    """A word of a unit, as systemd.syntax(7) has it quoted. Neither a specifier (%) nor, unless that stands for itself, a variable ($) is
    expanded in it (systemd.service(5), "Command lines": in arguments only)."""
    if PLAIN.fullmatch(word):
        return word
    return '"' + "".join(one if one in as_it_is else ESCAPES.get(one, one) for one in word) + '"'


def unit(words: Sequence[str], folder: str, written: str = "", needed: Sequence[str] = NEEDED) -> str:
    """The text of the unit that runs this command. Its run folder is below /run, or ValueError is raised; `written` is another folder that
    it writes to, "" for none; `needed` are its capabilities."""
    above, run, name = folder.rstrip("/").partition("/run/")
    if above or not run or not name or ".." in name.split("/"):
        raise ValueError(f"{folder} is not below /run")
    if ":" in name:  # what follows names a symbolic link (systemd.exec(5), RuntimeDirectory)
        raise ValueError(f"{folder} has a colon in its name: a unit can't make such a folder")
    program, *arguments = words
    command = " ".join([quoted(program, VARIABLE), *map(quoted, arguments)])
    paths = f"ReadWritePaths={quoted(f'-{written}', VARIABLE)}\n" if written else ""
    return TEXT.format(
        command=command,
        watchdog=WATCHDOG_SECONDS,
        folder=quoted(name, VARIABLE),
        paths=paths,
        capabilities=" ".join(f"CAP_{one}" for one in needed),
    )
