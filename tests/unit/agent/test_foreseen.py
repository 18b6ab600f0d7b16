"""What of an error is to be mended by somebody, and what a kernel says at any time."""

from __future__ import annotations

import pytest

from podplane.agent.foreseen import unforeseen
from podplane.kernel.errors import KernelError, Retry
from podplane.kernel.netlink import DumpInterrupted, Overrun
from podplane.kubeapi.errors import ApiError


@pytest.mark.parametrize(
    "error",
    [
        KernelError("add link", "Invalid argument"),
        Retry("add link", "busy"),
        OSError(24, "Too many open files"),
        DumpInterrupted("it changed"),
        Overrun(),
        ApiError(503, "ServiceUnavailable", "away"),
        RuntimeError("can't start new thread"),
    ],
)
def test_what_a_kernel_or_a_machine_says_is_no_fault(error: Exception) -> None:
    assert unforeseen(error) is None


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("Set changed size during iteration"), ValueError(), TypeError("x")]
)
def test_anything_else_is_one(error: Exception) -> None:
    assert unforeseen(error) is error
