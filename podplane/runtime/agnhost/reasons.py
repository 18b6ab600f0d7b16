"""Why a system call failed, in Go's words."""

from __future__ import annotations


def reason(error: OSError) -> str:
    """Why it failed, in one line."""
    return "timed out" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
