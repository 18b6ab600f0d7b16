"""The prober of the bench of one more pod: it says when all have answered, and does not take a closed port for an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench import first_answer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that is taken and that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one


def serve(server: socket.socket) -> None:
    """Answer questions: who asks waits for some milliseconds alone, and asks again."""
    server.listen()

    def answer() -> None:
        while True:
            with contextlib.suppress(ConnectionError), server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(ANSWER)

    threading.Thread(target=answer, daemon=True).start()


def test_nobody_answers_where_nobody_listens(silent: socket.socket) -> None:
    port = silent.getsockname()[1]
    assert not first_answer.answers("127.0.0.1", port)
    assert first_answer.when_all_answered(["127.0.0.1"], port, give_up=0.02) == -1


def test_an_answer_is_told_with_its_time(silent: socket.socket) -> None:
    port, before = silent.getsockname()[1], time.monotonic()
    serve(silent)
    assert before <= first_answer.when_all_answered(["127.0.0.1"], port) <= time.monotonic()
