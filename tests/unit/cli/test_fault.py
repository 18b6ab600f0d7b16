"""`podplane fault` without a node."""

from __future__ import annotations

import pytest

from podplane.cli.fault import fault
from podplane.lab.errors import LabError


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "podplane fault NODE$"),
        ("--clear", "podplane fault NODE --clear$"),
        ("--uplink-down", "podplane fault NODE --uplink-down$"),
        ("--cut-api node1", r"podplane fault NODE --cut-api \[[A-Z]+\]; 'node1' is the value of --cut-api$"),
    ],
)
def test_what_to_write_is_said(words: str, why: str) -> None:
    with pytest.raises(LabError, match=f"^say on which node, before the option: {why}"):
        fault.main(words.split(), standalone_mode=False)
