"""How much a pod may write."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.kernel.cgroups import MEMORY, Limits
from podplane.model.pod import Container, Pod
from podplane.runtime import limits
from podplane.runtime.limits import MOST, THE_LABS, USUAL


def container(**limited: str) -> Container:
    return msgspec.convert({"name": "main", "resources": {"limits": limited}}, Container)


def pod(*sizes: Any) -> Pod:
    """A pod with emptyDirs of these sizes, called a, b, c."""
    volumes = [{"name": name, "emptyDir": {"sizeLimit": size}} for name, size in zip("abc", sizes, strict=False)]
    return msgspec.convert({"spec": {"volumes": [*volumes, {"name": "files", "configMap": {}}]}}, Pod)


def test_what_a_container_writes_outside_of_its_volumes() -> None:
    assert limits.layer(container()) == limits.layer(container(cpu="1")) == USUAL + THE_LABS
    assert limits.layer(container(**{"ephemeral-storage": "10Mi"})) == (10 << 20) + THE_LABS
    assert limits.layer(container(**{"ephemeral-storage": "1Ei"})) == MOST + THE_LABS


@pytest.mark.parametrize("limit", ["1", "4095", "4Ki", "1000k", "0.5Mi"])
def test_a_limit_of_memory_with_which_nothing_starts_is_refused_where_it_is_applied(limit: str) -> None:
    limits.check(container(memory=limit), {"cpu"})
    with pytest.raises(limits.TooLittle, match=rf"memory limit {limit} is too low: no container starts with less than 1Mi"):
        limits.check(container(memory=limit), {"cpu", "memory"})


@pytest.mark.parametrize("limited", [{}, {"memory": "0"}, {"memory": "1Mi"}, {"cpu": "1m"}])
def test_other_limits_are_not_refused(limited: dict[str, str]) -> None:
    limits.check(container(**limited), {"cpu", "memory"})


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
    assert list(limits.not_applied(pod("1Mi", None), ())) == []
    (line,) = limits.not_applied(pod("1Ei", "1Mi"), ())
    assert line.startswith("volume a: sizeLimit 1Ei is not applied: ") and limits.mebibytes(USUAL) in line
    spec = {"containers": [{"name": "main", "resources": {"limits": {"ephemeral-storage": "1Ei"}}}]}
    (line,) = limits.not_applied(msgspec.convert({"spec": spec}, Pod), ())
    assert line.startswith("container main: a limit of ephemeral-storage of 1Ei is not applied: ")


def test_a_share_of_the_machine() -> None:
    resources = {"limits": {"memory": "64Mi", "cpu": "1.5"}, "requests": {"cpu": "100m"}}
    one = msgspec.convert({"name": "main", "resources": resources}, Container)
    assert limits.share(one, 7) == Limits(memory=64 << 20, cpu=1500, processes=7, asked_cpu=100)
    assert limits.share(container(), 0) == Limits()
    assert limits.share(container(cpu="100u", memory="1m"), 0) == Limits(memory=1, cpu=1)


@pytest.mark.parametrize(
    ("controllers", "told"),
    [((), "cpu and memory"), (("cpu", "pids"), "memory"), (("memory",), "cpu"), (("cpu", "memory"), "")],
)
def test_limits_without_control_groups_are_told(controllers: tuple[str, ...], told: str) -> None:
    resources = {"limits": {"memory": "64Mi", "cpu": "1"}}
    spec = {"containers": [{"name": "main", "resources": resources}, {"name": "free", "resources": {"requests": {"cpu": "1"}}}]}
    lines = list(limits.not_applied(msgspec.convert({"spec": spec}, Pod), controllers))
    assert [line.split(" are not")[0] for line in lines] == ([f"container main: its limits of {told}"] if told else [])


def test_pods_that_asked_for_memory_are_killed_later() -> None:
    def score(**resources: dict[str, str]) -> int:
        spec = {"containers": [{"name": "main", "resources": resources}]}
        one = msgspec.convert({"spec": spec}, Pod)
        return limits.oom_score(one, one.spec.containers[0])

    everything = {"cpu": "1", "memory": "1Gi"}
    assert score() == 1000
    assert score(limits=everything, requests=everything) == 2
    assert score(requests={"memory": str(MEMORY // 4)}) == 750
    assert score(requests={"cpu": "1"}) == 999
    assert score(requests={"memory": "1Ei"}) == 2
