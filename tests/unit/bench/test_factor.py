"""The pieces of work that machines are compared by: they are what they were when the reference was calibrated."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import factor
from podplane.kernel.netlink import messages, parse_attributes


def test_the_work_knows_nothing_of_podplane() -> None:
    tree = ast.parse(Path(factor.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith("podplane")]


def test_the_bytes_for_the_kernel_are_those_of_the_calibration() -> None:
    """Whoever changes them changes what the kernel has to do, and must calibrate again."""
    data = [factor.map_of_ports("factor", "ports"), *factor.elements("factor", "ports", factor.ELEMENTS)]
    assert hashlib.sha256(b"".join(data)).hexdigest() == DIGEST
    assert (factor.NAMESPACES, factor.VETHS, factor.ELEMENTS, factor.OBJECTS) == (100, 200, 100_000, 8_000)


DIGEST = "5182196cf40b5899434f5d02b921a72be76193c42c49da162871602bb42a09b9"


@given(st.integers(1, 300))
def test_the_python_work_comes_back_with_each_object(objects: int) -> None:
    assert factor.python_work(objects) == 2 * objects


@pytest.mark.parametrize("count", [1, 2, 3_000])
def test_transactions_are_well_formed_and_have_every_element(count: int) -> None:
    found = 0
    for data in factor.elements("factor", "ports", count):
        assert len(data) <= factor.TRANSACTION_BYTES
        first, *middle, last = messages(data)
        assert (first[0], last[0]) == (factor.BATCH_BEGIN, factor.BATCH_END)
        for kind, _, _, payload in middle:
            assert kind == factor.NEWSETELEM
            found += payload.count(b"svc/default/s")
            assert parse_attributes(payload, 4)[1] == b"factor\0"
    assert found == count


@pytest.mark.kernel
def test_the_kernel_takes_the_work() -> None:
    parts = factor.kernel_work(namespaces=2, veths=4, count=1_000)
    assert parts.keys() == {"namespaces", "veths", "elements"}
    assert all(seconds > 0 for seconds in parts.values())


@pytest.mark.kernel
def test_a_refusal_is_an_error() -> None:
    factor.kernel_work(namespaces=1, veths=1, count=1)
    with pytest.raises(OSError, match="File exists"):
        factor.kernel_work(namespaces=1, veths=1, count=1)
