"""The filter of system calls, tried on every call by a small machine for its program."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from podplane.kernel import seccomp
from podplane.kernel.rights import NAMES
from podplane.kernel.seccomp import ALLOW, LAST, MACHINES, REFUSED, Numbers, program

HEADERS = {
    ("x86_64", 0): "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    ("x86_64", 1): "/usr/include/x86_64-linux-gnu/asm/unistd_32.h",
    ("aarch64", 2): "/usr/include/asm-generic/unistd.h",
}
SIDES = [(machine, one) for machine, architectures in MACHINES.items() for one in architectures]
NO_CAPABILITIES, ALL = frozenset[str](), frozenset(NAMES)
CALLS = [(capability, name, numbers) for capability, calls in REFUSED.items() for name, numbers in calls.items()]


def outcome(code: bytes, audit: int, number: int, argument: int = 0) -> int:
    """What a filter returns: an errno, 0 for a call that is allowed."""
    data = struct.pack("=IIQ6Q", number, audit, 0, argument, *[0] * 5)
    at, word = 0, 0
    while True:
        instruction, true, false, operand = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if instruction == seccomp.RETURN:
            return 0 if operand == ALLOW else int(operand & 0xFFFF)
        if instruction == seccomp.LOAD:
            (word,) = struct.unpack_from("=I", data, operand)
        elif instruction == seccomp.ALWAYS:
            at += operand
        else:
            compare = {seccomp.EQUAL: word == operand, seccomp.GREATER: word > operand, seccomp.AND_JUMP: bool(word & operand)}
            at += true if compare[instruction] else false


@pytest.mark.parametrize(("machine", "architecture"), SIDES)
def test_each_call_is_refused_without_its_capability_and_allowed_with_it(
    machine: str, architecture: seccomp.Architecture
) -> None:
    for capability, name, numbers in CALLS:
        number = numbers[architecture.column]
        if number >= 0:
            assert outcome(program(NO_CAPABILITIES, machine), architecture.audit, number) == errno.EPERM, name
            with_all = outcome(program(ALL, machine), architecture.audit, number)
            assert with_all == (0 if capability else errno.EPERM), name
            if capability:
                assert outcome(program(frozenset({capability}), machine), architecture.audit, number) == 0, name


@pytest.mark.parametrize(("machine", "architecture"), SIDES)
def test_all_others_are_allowed_as_far_as_they_are_known(machine: str, architecture: seccomp.Architecture) -> None:
    code, audit, column = program(NO_CAPABILITIES, machine), architecture.audit, architecture.column
    refused = {numbers[column] for _, _, numbers in CALLS} | {seccomp.CLONE3[column]}
    assert {n for n in range(LAST + 1) if outcome(code, audit, n)} == refused - {-1}
    for number in (LAST + 1, 1000, 0x4000_0000, 0xFFFF_FFFF):
        assert outcome(code, audit, number) == errno.ENOSYS


@pytest.mark.parametrize(("machine", "architecture"), SIDES)
def test_what_the_argument_decides(machine: str, architecture: seccomp.Architecture) -> None:
    def asked(numbers: Numbers, argument: int, kept: frozenset[str] = NO_CAPABILITIES) -> int:
        return outcome(program(kept, machine), architecture.audit, numbers[architecture.column], argument)

    for flag in (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000):
        assert asked(seccomp.CLONE, 17 | flag) == errno.EPERM
        assert asked(seccomp.CLONE, 17 | flag, ALL) == 0
    assert asked(seccomp.CLONE, 0x003D_0F00) == 0, "a thread"
    assert asked(seccomp.CLONE3, 0) == errno.ENOSYS
    assert asked(seccomp.CLONE3, 0, ALL) == 0
    assert [asked(seccomp.SOCKET, family) for family in (1, 2, 10, 16, 17, 40)] == [0, 0, 0, 0, 0, errno.EPERM]
    assert {asked(seccomp.PERSONALITY, value) for value in seccomp.PERSONALITIES} == {0}
    assert asked(seccomp.PERSONALITY, 0x0040_0000) == errno.EPERM


def test_other_architectures_have_no_calls() -> None:
    for machine in MACHINES:
        assert outcome(program(ALL, machine), 0x8000_0016, 1) == errno.ENOSYS
    assert not seccomp.is_known("s390x")


def test_what_was_admins_before_still_is() -> None:
    for capability in seccomp.ALSO_ADMIN:
        for numbers in REFUSED[capability].values():
            assert outcome(program(frozenset({"SYS_ADMIN"}), "x86_64"), MACHINES["x86_64"][0].audit, numbers.x86_64) == 0


def test_capabilities_of_the_table_are_known() -> None:
    assert set(REFUSED) - {""} <= set(NAMES)


@pytest.mark.parametrize(("machine", "column"), HEADERS)
def test_numbers_are_those_of_the_kernels_headers(machine: str, column: int) -> None:
    header = Path(HEADERS[machine, column])
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    numbers = {name: int(n) for name, n in re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
    assert len(numbers) > 200
    own = {"seccomp": seccomp.SECCOMP, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3}
    own |= {"socket": seccomp.SOCKET, "personality": seccomp.PERSONALITY}
    for name, wanted in ((name, wanted) for calls in (*REFUSED.values(), own) for name, wanted in calls.items()):
        if name in numbers or wanted[column] < 424:  # headers may be older than the table
            assert numbers.get(name, -1) == wanted[column], name
