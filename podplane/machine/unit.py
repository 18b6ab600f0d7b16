"""The systemd unit of an agent. Pure.

`Type=notify` and the watchdog: see `machine.notify`. What the agent has in the kernel stays when it stops, and so does its folder in
/run, which has the journal of what is attached.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

NAME = "podplane-agent.service"
WATCHDOG_SECONDS = 30
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

[Install]
WantedBy=multi-user.target
"""


def unit(words: Sequence[str], folder: str) -> str:
    """The text of the unit that runs this command, whose run folder is below /run. ValueError when it is not."""
    above, run, name = folder.rstrip("/").partition("/run/")
    if above or not run or not name or ".." in name.split("/"):
        raise ValueError(f"{folder} is not below /run")
    command = " ".join(shlex.quote(word).replace("%", "%%") for word in words)
    return TEXT.format(command=command, watchdog=WATCHDOG_SECONDS, folder=name)
