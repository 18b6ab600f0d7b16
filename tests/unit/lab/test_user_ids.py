"""Which subordinate ids a lab's pods get."""

from __future__ import annotations

import pytest

from podplane.lab.user_ids import UNUSED, first_of, is_mapped

SUBUID = "alice:100000:65536\nbob:165536:1000\nbob:200000:131072\n1003:400000:65536\n# a comment\nroot:x:65536\n"


@pytest.mark.parametrize(
    ("names", "first"),
    [(("1001", "alice"), 100000), (("1002", "bob"), 200000), (("1003",), 400000), (("0", "root"), 0), (("1004", "carol"), 0)],
)
def test_the_first_range_that_is_large_enough(names: tuple[str, ...], first: int) -> None:
    assert first_of(SUBUID, names) == first


def test_ids_that_are_not_in_this_user_namespace_can_not_be_given_away() -> None:
    assert is_mapped("         0          0 4294967295\n", UNUSED)
    assert not is_mapped("         0       1000          1\n         1     100000      65536\n", UNUSED)
    assert not is_mapped("0 0 65536\n", 1)
    assert not is_mapped("", 0)
