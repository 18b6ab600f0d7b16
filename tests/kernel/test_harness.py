"""The harness itself: a kernel test is root of a network namespace with nothing in it, and a failure comes back."""

from __future__ import annotations

import os
import socket

import pytest

from tests.conftest import run_in_child


@pytest.mark.kernel
def test_a_kernel_test_is_root_in_an_empty_network() -> None:
    assert os.geteuid() == 0
    assert [name for _, name in socket.if_nameindex() if name == "eth0"] == []


def test_a_failure_in_the_child_is_reported() -> None:
    def fails() -> None:
        raise ValueError("seen")

    outcome, text = run_in_child(fails)
    assert outcome == "failed"
    assert "ValueError: seen" in text
