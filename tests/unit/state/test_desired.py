"""Laws of desired state: fragments in any order give the union; a difference leads from one state to the other."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.state.desired import Conflict, Desired
from podplane.state.network import Link, Neighbour, Sysctl
from podplane.state.operations import diff, patch
from podplane.state.value import Fragment, Identity, Value, fragment

names = st.sampled_from("abcdef")
shared = st.builds(Sysctl, name=names, value=st.just("1"), netns=st.sampled_from(("", "pod/1", "pod/2")))


def owned(key: str) -> st.SearchStrategy[Value]:
    """Values that only this key asks for, so that versions of them never conflict."""
    return st.builds(Sysctl, name=names.map(lambda n: f"{key}/{n}"), value=st.sampled_from("123"))


def fragments(key: str) -> st.SearchStrategy[Fragment]:
    values = st.lists(st.one_of(shared, owned(key)), max_size=6, unique_by=lambda v: v.identity)
    return values.map(fragment)


events = st.lists(st.sampled_from("xyz").flatmap(lambda key: st.tuples(st.just(key), fragments(key))), max_size=20)


def replace(desired: Desired, key: str, part: Fragment) -> None:
    """Replace a fragment; what it says of the change is true."""
    before = dict(desired)
    changes = desired.replace(key, part)
    assert dict(changes) == {i: before.get(i) for i in {*before, *desired} if before.get(i) != desired.get(i)}
    for netns in ("", "pod/1", "pod/2"):
        assert set(desired.in_namespace(netns)) == {i for i in desired if i[1] == netns and not str(i[0]).startswith("nft ")}


@given(events)
def test_any_history_leaves_the_union_of_the_last_fragments(history: list[tuple[str, Fragment]]) -> None:
    desired = Desired()
    for key, part in history:
        replace(desired, key, part)
    expected: dict[Identity, Value] = {}
    for part in dict(history).values():
        expected |= part
    assert dict(desired) == expected
    for key in dict(history):
        assert set(desired.fragment(key)) == {i for i in desired if key in desired.owners(i)}
    for key in dict(history):
        replace(desired, key, {})
    assert dict(desired) == {}
    assert not desired.keys_planned


@given(events)
def test_replacing_by_the_same_fragment_changes_nothing(history: list[tuple[str, Fragment]]) -> None:
    desired = Desired()
    for key, part in history:
        desired.replace(key, part)
        assert desired.replace(key, part) == []


@given(fragments("x"), fragments("x"))
def test_diff_leads_from_old_to_new_and_back(old: Fragment, new: Fragment) -> None:
    assert patch(old, diff(old, new)) == new
    assert patch(new, diff(new, old)) == old
    assert diff(new, new) == []


def test_a_conflict_names_both_keys_and_changes_nothing() -> None:
    desired = Desired()
    first, second = Link(name="cbr0", mtu=1500), Link(name="cbr0", mtu=1400)
    desired.replace("node/a", fragment([first]))
    with pytest.raises(Conflict, match=r"pod/b wants .*1400.*node/a wants .*1500"):
        desired.replace("pod/b", fragment([second]))
    assert dict(desired) == fragment([first])
    assert desired.owners(first.identity) == ("node/a",)


def test_a_fragment_refuses_two_values_of_one_object() -> None:
    ip = ipaddress.ip_address("fd00::1")
    with pytest.raises(ValueError, match="two values for one kernel object"):
        fragment([Neighbour(link="l", ip=ip, mac="02:00:00:00:00:01"), Neighbour(link="l", ip=ip, mac="02:00:00:00:00:02")])


def test_a_fragment_takes_in_others_and_two_values_of_one_object_are_refused() -> None:
    ip = ipaddress.ip_address("10.0.0.1")
    one, other, again = (Neighbour(link=link, ip=ip, mac=f"02:00:00:00:00:0{n}") for link, n in (("a", 1), ("b", 1), ("b", 2)))
    assert fragment([one], fragment([other]), fragment([one, other])) == fragment([one, other])
    with pytest.raises(ValueError, match="two values for one kernel object"):
        fragment([one], fragment([other]), fragment([again]))
