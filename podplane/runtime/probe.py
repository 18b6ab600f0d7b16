"""`podplane/probe`: sends packets where it is told and says what came back; `podplane check` runs one in every pod.

On a cluster it is `python -m podplane.runtime.probe` in a container of podplane's image, which does nothing else (`wait`).

It reads JSON lines on standard input and writes one JSON line for each on standard output:

    {"do": "serve", "name": N}       → {"port": P, "mtu": M, "ips": […], "resolv_conf": TEXT, "pings": may it?, "datagrams": does it
                                        answer them?}   from now on a server answers every connection, and every datagram of a probe,
                                        with its name and the source address that it saw; with "anywhere", at any free port
    {"do": "probe", "probes": […]}   → {"answers": […]}                    one answer a probe, in order; "seconds" says how
                                        long to wait for each

A probe is {"protocol": "icmp" | "tcp" | "open" | "http" | "udp", "ip", "port", "size"}; `size` (ICMP) is the length of the IP
packet, sent with "don't fragment"; `open` is content when its connection is taken; `http` asks an echo server. An answer is
{"ok": true, "seen": {"name", "source"}}, or {"ok": false, "error"}. `udp-message` and `tcp-message` send "payload", bytes in hexadecimal,
the second with its length in two bytes before it, and what is seen is the "message" that comes back in the same way. The program ends
with its input.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podplane.runtime import icmp
from podplane.runtime.interfaces import interfaces
from podplane.runtime.sockets import caller, family_of, listener

if TYPE_CHECKING:
    from podplane.kernel.zygote_child import Ready

WAIT = "wait"
USUAL_PORT = 8079
"""Where the server listens if it can, so that all pods serve the same port."""
AT_ONCE = 16
"""Probes that one process has on their way at one time."""
TIMEOUT_SECONDS = 2.0
CUT_OFF_SHARE = 0.2
"""Of the time, where none of the first probes was answered: nobody waits for hundreds one after another."""
RESEND_SECONDS = 0.4
"""An ICMP or UDP probe is sent again as often as that: a first packet may be lost without anything being wrong."""
ANSWER_BYTES = 4096
DATAGRAM = b"podplane"
"""What a probe sends, and all that the server answers: two that answer anything could answer each other for ever."""
UDP_MESSAGE, TCP_MESSAGE = "udp-message", "tcp-message"
RESOLV_CONF_CHARACTERS = 64 * 1024
TURN_SECONDS = 0.02
"""How often probes that get no answer are looked at."""


@dataclass(slots=True)
class Pending:
    """A probe on its way."""

    probe: dict[str, Any]
    number: int
    deadline: float
    resend_at: float = 0.0
    sock: socket.socket | None = None
    received: bytes = b""


def main(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Serve commands until the input ends."""
    ready()
    Prober(sys.stdin.fileno(), sys.stdout.fileno()).run()
    return 0


def wait() -> int:
    """Do nothing until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


@dataclass(slots=True)
class Prober:
    """One selector loop for all: commands, the server, and the probes on their way."""

    stdin: int
    stdout: int
    name: str = ""
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _input: bytes = b""
    _echo: dict[int, socket.socket] = field(default_factory=dict)
    _pending: dict[int, Pending] = field(default_factory=dict)
    _answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    _open: bool = True
    _patience: float = TIMEOUT_SECONDS

    def run(self) -> None:
        """Serve until the input ends."""
        os.set_blocking(self.stdin, False)
        self._selector.register(self.stdin, selectors.EVENT_READ, self._command)
        while self._open:
            self._turn(None)

    def _turn(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            key.data()

    def _command(self) -> None:
        try:
            data = os.read(self.stdin, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._open = False
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            self._patience = command.get("seconds", TIMEOUT_SECONDS)
            is_server = command["do"] == "serve"
            self._say(self._serve(command) if is_server else self._probe_all(command["probes"]))

    def _say(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode() + b"\n"
        while data:
            data = data[os.write(self.stdout, data) :]

    # The server that others connect to.

    def _serve(self, command: dict[str, Any]) -> dict[str, Any]:
        self.name = command["name"]
        try:
            sock = listener(socket.SOCK_STREAM, 0 if command.get("anywhere") else USUAL_PORT)
        except OSError:
            sock = listener(socket.SOCK_STREAM, 0)
        port = sock.getsockname()[1]
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._accept(sock))
        ips, mtu = interfaces()
        pings = all(map(self._pings, {icmp.version_of(ip) for ip in ips}))
        able = {"pings": pings, "datagrams": self._serve_datagrams(port)}
        return {"port": port, "mtu": mtu, "ips": ips, "resolv_conf": resolv_conf(), **able}

    def _serve_datagrams(self, port: int) -> bool:
        """At the same port, unless somebody else has it."""
        try:
            sock = listener(socket.SOCK_DGRAM, port)
        except OSError:
            return False
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._datagram(sock))
        return True

    def _pings(self, version: int) -> bool:
        try:
            self._echo_socket(version)
        except OSError:
            return False
        return True

    def _accept(self, server: socket.socket) -> None:
        try:
            sock, address = server.accept()
            with sock:
                sock.sendall(self._greeting(address))
        except OSError:
            return

    def _datagram(self, server: socket.socket) -> None:
        try:
            data, address = server.recvfrom(ANSWER_BYTES)
            if data == DATAGRAM:
                server.sendto(self._greeting(address), address)
        except OSError:
            return

    def _greeting(self, address: tuple[str, int]) -> bytes:
        return json.dumps({"name": self.name, "source": caller(address)[0]}).encode() + b"\n"

    # Probes.

    def _probe_all(self, probes: list[dict[str, Any]]) -> dict[str, Any]:
        self._answers = {}
        todo = list(enumerate(probes))[::-1]
        while todo or self._pending:
            while todo and len(self._pending) < AT_ONCE:
                self._begin(*todo.pop())
            self._turn(min(TURN_SECONDS, self._patience))
            self._look_after_time()
        return {"answers": [self._answers[i] for i in range(len(probes))]}

    def _begin(self, number: int, probe: dict[str, Any]) -> None:
        is_cut_off = len(self._answers) >= AT_ONCE and not any(answer["ok"] for answer in self._answers.values())
        pending = Pending(probe, number, time.monotonic() + self._patience * (CUT_OFF_SHARE if is_cut_off else 1))
        self._pending[number] = pending
        try:
            if probe["protocol"] == "icmp":
                self._send_icmp(pending)
            else:
                self._open_socket(pending)
        except OSError as error:
            self._done(pending, error=error.strerror or str(error))

    def _send_icmp(self, pending: Pending) -> None:
        probe = pending.probe
        version = icmp.version_of(probe["ip"])
        sock = self._echo_socket(version)
        message = icmp.request(version, os.getpid() & 0xFFFF, pending.number & 0xFFFF, probe.get("size", 0))
        pending.resend_at = time.monotonic() + RESEND_SECONDS
        sock.sendto(message, (probe["ip"], 0))

    def _echo_socket(self, version: int) -> socket.socket:
        if version not in self._echo:
            sock = self._echo[version] = icmp.echo_socket(version)
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._icmp_answers(version, sock))
        return self._echo[version]

    def _icmp_answers(self, version: int, sock: socket.socket) -> None:
        while True:
            try:
                packet, address = sock.recvfrom(1 << 16)
            except OSError:
                return
            is_raw = icmp.is_raw(sock)
            found = icmp.reply(version, packet, is_raw=is_raw)
            is_own = found is not None and (not is_raw or found[0] == os.getpid() & 0xFFFF)
            pending = self._pending.get(found[1]) if found is not None and is_own else None
            if pending and pending.probe["protocol"] == "icmp" and caller(address)[0] == pending.probe["ip"]:
                self._done(pending, seen={})

    def _open_socket(self, pending: Pending) -> None:
        probe = pending.probe
        kind = socket.SOCK_DGRAM if probe["protocol"] in ("udp", UDP_MESSAGE) else socket.SOCK_STREAM
        sock = pending.sock = socket.socket(family_of(probe["ip"]), kind)
        sock.setblocking(False)
        code = sock.connect_ex((probe["ip"], probe["port"]))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        if kind == socket.SOCK_DGRAM:
            self._send_udp(pending)
        if probe["protocol"] == "open":
            self._selector.register(sock, selectors.EVENT_WRITE, lambda: self._opened(pending))
        elif probe["protocol"] in ("http", TCP_MESSAGE):
            self._selector.register(sock, selectors.EVENT_WRITE, lambda: self._send_request(pending))
        else:
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._receive(pending))

    def _send_udp(self, pending: Pending) -> None:
        assert pending.sock is not None
        pending.resend_at = time.monotonic() + RESEND_SECONDS
        pending.sock.send(bytes.fromhex(pending.probe.get("payload", "")) or DATAGRAM)

    def _send_request(self, pending: Pending) -> None:
        """The connection stands, or failed: which, the first send says."""
        assert pending.sock is not None
        try:
            pending.sock.send(_request(pending.probe))
        except OSError as error:
            self._done(pending, error=error.strerror or str(error))
            return
        self._selector.modify(pending.sock, selectors.EVENT_READ, lambda: self._receive(pending))

    def _opened(self, pending: Pending) -> None:
        """The connection stands, or failed."""
        assert pending.sock is not None
        code = pending.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._done(pending, seen={}, error=os.strerror(code) if code else "")

    def _receive(self, pending: Pending) -> None:
        assert pending.sock is not None
        try:
            data = pending.sock.recv(ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._done(pending, error=error.strerror or str(error))
            return
        pending.received += data
        if pending.probe["protocol"] in (UDP_MESSAGE, TCP_MESSAGE):
            self._receive_message(pending, is_over=not data)
        elif not data or pending.received.endswith(b"\n") or pending.probe["protocol"] == "udp":
            self._done(pending, seen=_seen(pending.received))

    def _receive_message(self, pending: Pending, *, is_over: bool) -> None:
        """A datagram is a message; of a connection, what its first two bytes say."""
        is_datagram = pending.probe["protocol"] == UDP_MESSAGE
        length = int.from_bytes(pending.received[:2], "big")
        message = pending.received if is_datagram else pending.received[2 : 2 + length]
        if is_datagram or len(pending.received) >= 2 + length > 2:
            self._done(pending, seen={"message": message.hex()})
        elif is_over:
            self._done(pending, error="the connection was closed without an answer")

    def _look_after_time(self) -> None:
        now = time.monotonic()
        for pending in list(self._pending.values()):
            if now >= pending.deadline:
                self._done(pending, error="no answer")
            elif pending.resend_at and now >= pending.resend_at:
                try:
                    if pending.sock is None:
                        self._send_icmp(pending)
                    else:
                        self._send_udp(pending)
                except OSError as error:
                    self._done(pending, error=error.strerror or str(error))

    def _done(self, pending: Pending, *, seen: dict[str, Any] | None = None, error: str = "") -> None:
        if self._pending.pop(pending.number, None) is None:
            return
        if pending.sock is not None:
            if pending.sock.fileno() in self._selector.get_map():
                self._selector.unregister(pending.sock)
            pending.sock.close()
        self._answers[pending.number] = {"ok": not error, "seen": seen or {}, "error": error}


def _seen(answer: bytes) -> dict[str, Any]:
    """What the other end reported: an object with name and source, or nothing that can be understood."""
    try:
        found = json.loads(answer.rpartition(b"\r\n")[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _request(probe: Mapping[str, Any]) -> bytes:
    """What is sent over a connection."""
    payload = bytes.fromhex(probe.get("payload", ""))
    return len(payload).to_bytes(2, "big") + payload if payload else b"GET / HTTP/1.1\r\nHost: probe\r\n\r\n"


def resolv_conf() -> str:
    """The container's /etc/resolv.conf; "" when it has none."""
    try:
        with open("/etc/resolv.conf", errors="replace") as file:
            return file.read(RESOLV_CONF_CHARACTERS)
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(wait() if sys.argv[1:] == [WAIT] else main(sys.argv, os.environ, lambda: None))
