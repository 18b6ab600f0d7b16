"""Which ids of a lab are its pods'."""

from __future__ import annotations

import pytest

from podplane.kernel.ids import COUNT, FIRST, Ids, given, lab_map


@pytest.mark.parametrize("own", [0, 1000])
def test_pods_have_the_range_that_the_lab_has_beside_its_own_id(own: int) -> None:
    users = given(lab_map(own, 100000, shares_own=False))
    assert users == (FIRST, COUNT)
    assert not users.are_the_labs
    assert users.map == f"0 {FIRST} {COUNT}"


def test_user_0_of_pods_may_be_the_labs_own_while_the_others_are_not() -> None:
    users = given(lab_map(1000, 100000, shares_own=True))
    assert users == (0, COUNT)
    assert users.are_the_labs
    assert users.map == f"0 0 1\n1 1 {COUNT - 1}"


@pytest.mark.parametrize(
    "text", ["         0       1000          1\n", "         0          0 4294967295\n", f"0 0 1\n{FIRST} 1 100\n"]
)
def test_else_pods_have_one_user_which_is_the_labs(text: str) -> None:
    assert given(text) == (0, 1)
    assert Ids().map == "0 0 1"


def test_numbers_that_a_pod_has() -> None:
    assert 0 in Ids()
    assert 1 not in Ids()
    assert 65535 in Ids(FIRST, COUNT)
    assert not {65536, -1, "0"} & {number for number in (65536, -1, "0") if number in Ids(FIRST, COUNT)}
