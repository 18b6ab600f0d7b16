"""Terminals and signals of containers that the zygote starts."""

from __future__ import annotations

import fcntl
import os
import signal
import termios

import pytest

from tests.kernel.test_zygote import Machine, contained, ends

pytestmark = pytest.mark.kernel


@contained
async def test_signals_are_as_usual_in_a_container(machine: Machine) -> None:
    lines = (await machine.says("cat /proc/self/status")).split("\n")
    lines = [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    usual = (1 << 31) - 1  # 32 and above are the C library's own
    assert {line.split(":")[0]: int(line.split()[1], 16) & usual for line in lines} == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


@contained
async def test_a_terminal_is_the_controlling_one(machine: Machine) -> None:
    ends_of: list[int] = []
    process = machine.sh("test -t 0 && echo seen >/dev/tty", terminal=ends_of.append)
    assert await ends(process) == 0
    (ours,) = ends_of
    assert os.read(ours, 99) == b"seen\r\n"
    os.close(ours)


@contained
async def test_no_descriptor_of_a_terminal_stays_that_nobody_takes(machine: Machine) -> None:
    before = os.listdir("/proc/self/fd")
    process = machine.sh("exec sleep 1000", terminal=os.close)
    await process.started()
    process.signal(signal.SIGKILL)
    await ends(process)
    failed = machine.start("nonsense", terminal=os.close)
    assert await ends(failed) == 127
    assert os.listdir("/proc/self/fd") == before


@contained
async def test_interrupt_on_a_terminal_reaches_the_command(machine: Machine) -> None:
    container = await machine.running()
    ends_of: list[int] = []
    process = machine.start("sleep", "1000", join=container.id, terminal=ends_of.append)
    await process.started()
    (ours,) = ends_of
    assert os.getpgid(process.pid) == int.from_bytes(fcntl.ioctl(ours, termios.TIOCGPGRP, bytes(4)), "little")
    os.write(ours, b"\x03")
    assert await ends(process) == 128 + signal.SIGINT


@contained
async def test_without_a_terminal_there_is_none(machine: Machine) -> None:
    assert await ends(machine.sh(": </dev/tty")) != 0


@contained
async def test_a_signal_reaches_a_handler(machine: Machine) -> None:
    process, reader = machine.talker("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done")
    assert await reader.readline() == b"ready\n"
    process.signal(signal.SIGTERM)
    assert await ends(process) == 9
    process.signal(signal.SIGKILL)  # of one that ended, nothing happens
    assert await machine.says("echo fine") == "fine"
