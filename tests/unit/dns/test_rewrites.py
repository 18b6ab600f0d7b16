"""Which rewrite counts for a name: found as a walk through all of them would find it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.config import Rewrite
from podplane.dns.message import Name
from podplane.dns.rewrites import Rewrites

NAMES = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4).map(tuple)
RULES = st.lists(st.builds(Rewrite, NAMES, NAMES, st.booleans()), max_size=8)


@given(RULES, NAMES)
def test_the_first_that_fits_counts(rules: list[Rewrite], name: Name) -> None:
    first = next(((rule, target) for rule in rules if (target := rule.of(name)) is not None), None)
    assert Rewrites(rules).of(name) == first


def test_a_name_that_gets_too_long_is_none() -> None:
    long = (b"l" * 63,) * 3
    rewrites = Rewrites([Rewrite((b"a",), long, suffix=True)])
    assert rewrites.of((b"x", b"a")) == (rewrites.rules[0], (b"x", *long))
    with pytest.raises(ValueError, match="longer than a name"):
        rewrites.of((b"x" * 63, b"a"))
