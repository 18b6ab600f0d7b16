"""How much a pod may write."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.model.pod import Container, Pod
from podplane.runtime import limits
from podplane.runtime.limits import MOST, USUAL


def container(**limited: str) -> Container:
    return msgspec.convert({"name": "main", "resources": {"limits": limited}}, Container)


def pod(*sizes: Any) -> Pod:
    """A pod with emptyDirs of these sizes, called a, b, c."""
    volumes = [{"name": name, "emptyDir": {"sizeLimit": size}} for name, size in zip("abc", sizes, strict=False)]
    return msgspec.convert({"spec": {"volumes": [*volumes, {"name": "files", "configMap": {}}]}}, Pod)


def test_what_a_container_writes_outside_of_its_volumes() -> None:
    assert limits.layer(container()) == limits.layer(container(cpu="1")) == USUAL
    assert limits.layer(container(**{"ephemeral-storage": "10Mi"})) == 10 << 20
    assert limits.layer(container(**{"ephemeral-storage": "1Ei"})) == MOST


@pytest.mark.parametrize(
    ("sizes", "own"),
    [
        ((None,), {}),
        (("1Mi", None, "2Mi"), {"a": 1 << 20, "c": 2 << 20}),
        ((str(MOST),), {"a": MOST}),
        ((str(MOST), "1Mi"), {"a": MOST}),
        ((str(MOST + 1), "1Mi"), {"b": 1 << 20}),
        (("0", 0), {}),
    ],
)
def test_empty_dirs_of_a_size(sizes: tuple[Any, ...], own: dict[str, int]) -> None:
    assert limits.sized(pod(*sizes)) == own


def test_limits_that_have_another_bound_are_told() -> None:
    assert list(limits.not_applied(pod("1Mi", None))) == []
    (line,) = limits.not_applied(pod("1Ei", "1Mi"))
    assert line.startswith("volume a: sizeLimit 1Ei is not applied: ") and limits.mebibytes(USUAL) in line
    spec = {"containers": [{"name": "main", "resources": {"limits": {"ephemeral-storage": "1Ei"}}}]}
    (line,) = limits.not_applied(msgspec.convert({"spec": spec}, Pod))
    assert line.startswith("container main: a limit of ephemeral-storage of 1Ei is not applied: ")
