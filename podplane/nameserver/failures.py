"""Why a server could not be asked, in words."""

from __future__ import annotations

import errno
import os
import ssl

REFUSED_HERE = "Operation not permitted: a rule of the node or the machine refuses it, as for a Service without endpoints"
ASYNCIO = "Connect call failed"
"""What asyncio says of a connection, whatever the kernel said."""


def words(error: Exception) -> str:
    """What went wrong."""
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.strerror or str(error)  # its errno is none of the kernel's
    if error.errno == errno.EPERM:
        return REFUSED_HERE
    if error.errno is not None and (error.strerror or ASYNCIO).startswith(ASYNCIO):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
