"""The pods of a namespace by the labels that selectors ask for: none is left out, and what nobody asks for is not kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.model.pod_info import PodInfo
from podplane.model.policy import LabelSelector
from podplane.policy import labelled_pods
from podplane.policy.labelled_pods import LabelledPods
from tests.unit.policy import generated
from tests.unit.policy.generated import pod, select

COUNT = 100


@settings(max_examples=60)
@given(
    st.lists(st.one_of(generated.pods(), generated.label_selectors), max_size=20),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_no_pod_that_a_selector_selects_is_left_out(
    steps: list[PodInfo | LabelSelector], few: int, most_keys: int, room: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(labelled_pods, "FEW", few)
        patched.setattr(labelled_pods, "MOST_KEYS", most_keys)
        pods, there = LabelledPods(), dict[str, PodInfo]()
        for step in steps:
            if isinstance(step, LabelSelector):
                pods.gather(step.requirements, room)
                found = list(pods.candidates(step.requirements))
                selected = [one for one in there.values() if step.matches(one.metadata.labels)]
                assert len({id(one) for one in found}) == len(found)
                assert {id(one) for one in selected} <= {id(one) for one in found} <= {id(one) for one in there.values()}
            elif there.get(step.metadata.name) == step:
                del there[step.metadata.name]
                pods.remove(step.metadata.name)
            else:
                there[step.metadata.name] = step
                pods.set(step.metadata.name, step)
        assert dict(pods.by_name) == there


def shop() -> LabelledPods:
    pods = LabelledPods()
    for number in range(COUNT):
        pods.set(f"p{number}", pod(f"a/p{number}", {"app": f"app-{number // 10}", "env": "prod", "own": str(number)}))
    return pods


def test_a_label_that_was_asked_for_costs_what_its_pods_are() -> None:
    pods, app = shop(), select(app="app-3", env="prod").requirements
    assert len(pods.candidates(app)) == COUNT
    assert pods.gather(app, 1) == COUNT
    assert {one.metadata.name for one in pods.candidates(app)} == {f"p{number}" for number in range(30, 40)}
    assert pods.gather(app, 1) == 0, "ten are few enough: env is not asked for"
    pods.set("p3", pod("a/p3", {"app": "app-3"}))
    pods.set("p30", pod("a/p30", {"app": "app-4"}))
    pods.remove("p31")
    assert {one.metadata.name for one in pods.candidates(app)} == {"p3", *(f"p{number}" for number in range(32, 40))}


def test_no_more_keys_are_gathered_than_there_is_room_for() -> None:
    pods, both = shop(), select(app="app-3", env="prod", own="x").requirements
    assert pods.gather(both, 0) == 0
    assert pods.gather(select(env="prod", zone="x").requirements, COUNT) == COUNT, "one of two keys"
    assert pods.gather(select(env="prod", zone="x").requirements, COUNT) == COUNT
    assert len(pods.candidates(select(zone="x").requirements)) == 0


def test_keys_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_pods, "MOST_KEYS", 2)
    pods = shop()
    for key in ("app", "env", "own", "app"):
        pods.gather(select(**{key: "x"}).requirements, 1)
        assert len(pods._values) <= 2
    assert set(pods._values) == {"own", "app"}


def test_few_pods_are_looked_at_one_by_one() -> None:
    pods = LabelledPods()
    pods.set("p", pod("a/p", {"app": "web"}))
    assert pods.gather(select(app="db").requirements, 1) == 0 and len(pods.candidates(select(app="db").requirements)) == 1
