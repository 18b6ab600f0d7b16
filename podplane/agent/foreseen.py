"""What a kernel or a machine may say at any time, beside what nobody thought of: that goes to the log with its traceback, and counts
(`apiserver.unforeseen`)."""

from __future__ import annotations

from podplane.kernel.errors import KernelError
from podplane.kernel.netlink import DumpInterrupted
from podplane.kubeapi.errors import ApiError

FORESEEN = KernelError, OSError, DumpInterrupted, ApiError
NO_THREAD = "can't start new thread"


def unforeseen(error: Exception) -> Exception | None:
    """The error itself where nobody thought of it, for `exc_info`, else None."""
    return None if isinstance(error, FORESEEN) or str(error) == NO_THREAD else error
