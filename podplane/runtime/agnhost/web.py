"""HTTP as a client, for subcommands that ask others; it waits, so it is for forks and threads."""

from __future__ import annotations

from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 1024 * 1024
SECONDS = 5.0


def ask(url: str, *, method: str = "GET", body: bytes | None = None, seconds: float = SECONDS) -> tuple[int, bytes]:
    """Status and body of the answer. OSError when there is none."""
    import http.client  # brings the email package

    place = urlsplit(url)
    try:
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=seconds)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, place._replace(scheme="", netloc="").geturl() or "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from None
