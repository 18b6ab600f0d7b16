"""A command in a container, from the outside: a WebSocket (RFC 6455, by wsproto) that speaks `v5.channel.k8s.io`.

Blocking, one socket a session, with `fileno`: a caller waits for many sessions with a selector and then receives.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as Opening
from wsproto.utilities import ProtocolError

from podplane.kubeapi import channels as ch
from podplane.kubeapi.access import Access
from podplane.kubeapi.errors import ApiError, checked
from podplane.kubeapi.http import TIMEOUT_SECONDS
from podplane.kubeapi.messages import Request, Response
from podplane.kubeapi.requests import target

RECEIVE_BYTES = 64 * 1024


class ExecSession:
    """One command. ApiError when the server refuses it."""

    def __init__(self, access: Access, request: Request) -> None:
        try:
            plain = socket.create_connection((access.host, access.port), TIMEOUT_SECONDS)
            self._socket = access.context().wrap_socket(plain, server_hostname=access.server_name or access.host)
        except OSError as error:
            raise ApiError(503, "ServiceUnavailable", f"the API at {access.address} does not answer: {error}") from None
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._parts = b""
        self._refusal: tuple[int, bytes] | None = None
        self._accepted = False
        self._over = False
        self._pending: list[tuple[int, bytes]] = []
        extra = [(name.encode(), value.encode()) for name, value in request.headers.items() if name == "authorization"]
        opening = Opening(
            host=access.address, target=access.prefix + target(request), subprotocols=[ch.PROTOCOL], extra_headers=extra
        )
        self._socket.sendall(self._ws.send(opening))
        while not self._accepted:
            self._pending += list(self._turn())
            if self._over and not self._accepted:
                self.close()
                checked(Response(*(self._refusal or (503, b"the server closed the connection"))))
        self._socket.settimeout(None)  # a command may be silent for as long as it likes

    def fileno(self) -> int:
        """The socket, for a selector."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """To the command's standard input; nothing happens after it ended."""
        self._send(bytes([ch.STDIN]) + data)

    def close_input(self) -> None:
        """No more input."""
        self._send(bytes([ch.CLOSE, ch.STDIN]))

    def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the terminal."""
        self._send(bytes([ch.RESIZE]) + b'{"Width":%d,"Height":%d}' % (columns, rows))

    def _send(self, message: bytes) -> None:
        if not self._over:
            try:
                self._socket.sendall(self._ws.send(BytesMessage(message)))
            except OSError:
                self._over = True

    @property
    def has_pending(self) -> bool:
        """Something has come that the socket doesn't show any more: `receive` has it without waiting."""
        return bool(self._pending) or (not self._over and self._socket.pending() > 0)

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self._over and not self._pending

    def receive(self) -> list[tuple[int, bytes]]:
        """(channel, data) of what has come; waits for at least something. Empty when the conversation is over."""
        found = self._take_pending()
        while not found and not self._over:
            found = list(self._turn())
        return found

    def receive_ready(self) -> list[tuple[int, bytes]]:
        """(channel, data) of what has come, and may be nothing: what makes the socket readable need not be data (a message that says
        only that the connection stands, a session ticket of TLS)."""
        found = self._take_pending()
        if not found and not self._over:
            found = list(self._turn(waits=False))
        return found

    def _take_pending(self) -> list[tuple[int, bytes]]:
        pending, self._pending = self._pending, []
        return pending

    def _turn(self, *, waits: bool = True) -> Iterator[tuple[int, bytes]]:
        """One receive from the socket, and what it means."""
        try:
            data = self._socket.recv(RECEIVE_BYTES) if waits else self._ready_bytes()
            if data is None:
                return
            self._ws.receive_data(data or None)
        except (OSError, ProtocolError):
            self._over = True
            return
        if not data:
            self._over = True
        for event in self._ws.events():
            match event:
                case AcceptConnection():
                    self._accepted = True
                case RejectConnection():
                    self._refusal = (event.status_code, b"")
                    self._over = not event.has_body
                case RejectData():
                    code, body = self._refusal or (503, b"")
                    self._refusal = (code, body + event.data)
                    self._over = event.body_finished
                case BytesMessage() | TextMessage():
                    self._parts += event.data.encode() if isinstance(event.data, str) else event.data
                    if event.message_finished:
                        message, self._parts = self._parts, b""
                        if len(message) > 1:  # an empty one says only that the connection stands
                            yield message[0], message[1:]
                case Ping():
                    self._socket.sendall(self._ws.send(event.response()))
                case CloseConnection():
                    self._over = True

    def _ready_bytes(self) -> bytes | None:
        """What can be received without waiting; None when that is nothing."""
        self._socket.settimeout(0)
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except (ssl.SSLWantReadError, BlockingIOError):
            return None
        finally:
            self._socket.settimeout(None)

    def close(self) -> None:
        """Let go of the connection: the command ends if it still runs."""
        self._over = True
        self._socket.close()
