"""What is looked at when labels change: what could matter, whatever the number of selectors (N16)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podplane.model.policy import LabelSelector, Requirement
from podplane.policy.inverted import Labelled, Selectors
from tests.unit.policy import generated
from tests.unit.policy.generated import select

COUNT = 2000


def test_a_selector_stands_under_the_least_crowded_pair_that_it_requires() -> None:
    selectors = Selectors[int]()
    for number in range(COUNT):
        selectors.add(number, select(app=f"app-{number}", env="prod", zone="a").requirements)
    labels = {"app": "app-7", "env": "prod", "zone": "a", "hash": "x"}
    assert len(selectors.candidates(labels.items())) <= 3
    assert 7 in selectors.candidates(labels.items())


def test_a_change_looks_at_those_that_mention_it_or_at_those_that_fit_whichever_are_fewer() -> None:
    selectors = Selectors[int]()
    for number in range(COUNT):
        selectors.add(number, select(app=f"app-{number}", env="prod").requirements)
    before = {"app": "app-7", "env": "prod"}
    for after in ({"app": "app-8", "env": "prod"}, {"app": "app-7", "env": "test"}, {"app": "app-7"}):
        found = selectors.candidates_of_change(before.items(), after.items())
        assert 7 in found
        assert len(found) <= 6
    assert selectors.candidates_of_change(before.items(), (before | {"hash": "x"}).items()) == {}


def test_what_selects_nearly_everything_is_looked_at_only_when_what_it_mentions_changes() -> None:
    selectors = Selectors[int]()
    for number in range(COUNT):
        selectors.add(number, [Requirement("app", "NotIn", (f"app-{number}",)), Requirement("skip", "DoesNotExist")])
    found = selectors.candidates_of_change({"app": "app-7"}.items(), {"app": "app-8"}.items())
    assert set(found) == {7, 8}
    assert len(selectors.candidates_of_change({"app": "a"}.items(), {"app": "b"}.items())) == 0
    assert len(selectors.candidates_of_change({"app": "a"}.items(), {"app": "a", "skip": ""}.items())) == COUNT


@given(st.lists(generated.label_selectors, max_size=6), generated.labels, generated.labels)
def test_nobody_whose_answer_changes_is_left_out(
    wanted: list[LabelSelector], before: dict[str, str], after: dict[str, str]
) -> None:
    selectors = Selectors[int]()
    for number, selector in enumerate(wanted):
        selectors.add(number, selector.requirements)
    fits = {number for number, selector in enumerate(wanted) if selector.matches(before)}
    changed = {number for number, selector in enumerate(wanted) if selector.matches(before) != selector.matches(after)}
    assert fits <= set(selectors.candidates(before.items()))
    assert changed <= set(selectors.candidates_of_change(before.items(), after.items()))


@given(st.lists(generated.labels, max_size=8), generated.label_selectors)
def test_nothing_that_a_selector_chooses_is_left_out(things: list[dict[str, str]], selector: LabelSelector) -> None:
    labelled = Labelled[int]()
    for number, labels in enumerate(things):
        labelled.add(number, labels.items())
    found = labelled.candidates(selector.requirements)
    if found is None:
        assert not any(one.operator == "In" for one in selector.requirements)
        return
    count, candidates = found
    listed = list(candidates)
    assert len(listed) == count
    assert {number for number, labels in enumerate(things) if selector.matches(labels)} <= set(listed)
