"""A name server's process that does what the first order says (in the place of the domain): a word for each process, the last one for all
further ones."""

from __future__ import annotations

import os
import signal
import socket
import sys

from podplane.nameserver import control


def main(fd: int) -> None:
    """Follow orders; what they were is written down in the file that the token names."""
    connection = socket.socket(fileno=fd)
    begin, _ = control.receive(connection)
    assert isinstance(begin, control.Begin)
    words = begin.domain.split()
    word = words[min(begin.restarts, len(words) - 1)]
    if word == "fails":
        sys.exit(3)
    if word not in ("starts", "waits"):
        control.send(connection, control.Ready())
    if word == "ends":
        sys.exit(4)
    if word == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        order, fds = control.receive(connection)
        if order is None:
            return
        for number in fds:
            os.fstat(number)
            os.close(number)
        with open(begin.access.token, "a") as log:
            log.write(f"{begin.restarts} {order} {len(fds)}\n")
        if isinstance(order, control.Ping) and word not in ("hangs", "starts"):
            control.send(connection, control.Pong())
