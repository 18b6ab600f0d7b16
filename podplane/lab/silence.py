"""How long `up` waits for a starting lab that says nothing: longer for one that works than for one that does nothing.

Between two lines of progress a start takes tenths of a second. Where the processor is emulated, or shared with much else, that becomes
more than a minute: the longest step is that in which the lab's first process imports its code.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from podplane.lab.errors import LabError
from podplane.lab.folder import Folder

SILENT_SECONDS = 60.0
"""A lab that starts says how far it is more often."""
BUSY_SECONDS = 1.0
"""Of processor time: a lab that used less of it in SILENT_SECONDS does nothing, but for looks at the kernel now and then."""
MOST = 10
"""Times SILENT_SECONDS: for so long no lab is silent."""
USER_TIME, SYSTEM_TIME = 14, 15
"""Numbers of fields of /proc/PID/stat (proc_pid_stat(5)), in ticks of the clock."""


def heard(connection: socket.socket, folder: Folder, step: str) -> bytes:
    """What a starting lab says next, nothing at its end. LabError when nothing comes, and it does not work either."""
    connection.settimeout(SILENT_SECONDS)
    used, times = processor_seconds(folder), 0
    while True:
        try:
            return connection.recv(65536)
        except TimeoutError:
            before, used, times = used, processor_seconds(folder), times + 1
            if used - before < BUSY_SECONDS or times == MOST:
                raise LabError(_told(times * SILENT_SECONDS, step)) from None


def _told(seconds: float, step: str) -> str:
    why = "was its first process stopped by a signal, or is this machine short of something?"
    return f"nothing was heard of the starting lab for {seconds:g} s, at its {step}: {why}"


def processor_seconds(folder: Folder) -> float:
    """What the first process of a lab has used of the processors; 0 when there is none."""
    try:
        stat = Path(f"/proc/{folder.holder()}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # the third and further ones, behind a name that may have anything in it
    return (int(fields[USER_TIME - 3]) + int(fields[SYSTEM_TIME - 3])) / os.sysconf("SC_CLK_TCK")
