"""Why a server could not be asked, in words."""

from __future__ import annotations

import errno
import ssl

import pytest

from podplane.nameserver.failures import REFUSED_HERE, words


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
        (OSError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 53)"), "Connection refused"),
        (OSError(errno.ENOBUFS, "too many questions are on their way to it"), "too many questions are on their way to it"),
        (OSError("no errno"), "no errno"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
            "[SSL: WRONG_VERSION_NUMBER] wrong version number",
        ),
        (PermissionError(errno.EPERM, "Operation not permitted"), REFUSED_HERE),
        (ValueError(), "ValueError"),
    ],
)
def test_errors_in_words(error: Exception, text: str) -> None:
    assert words(error) == text
