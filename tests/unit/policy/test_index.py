"""The index says what a walk over all pods and policies would say, after whatever came and went; and tells what changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.cluster_policy import ClusterNetworkPolicy, Policy
from podplane.model.pod_info import NamedPort, NamespaceInfo, PodInfo
from podplane.model.policy import EVERYTHING, LabelSelector, NetworkPolicy, PodSelector, PolicyMetadata, Requirement
from podplane.policy.index import NOTHING, Change, Move, PolicyIndex
from tests.unit.policy import generated
from tests.unit.policy.generated import NAMESPACES, namespace, pod, select

WEB = PodSelector("a", select(app="web"))


class Naive:
    """The same questions, answered by looking at everything."""

    def __init__(self) -> None:
        self.pods: dict[str, PodInfo] = {}
        self.namespaces: dict[str, NamespaceInfo] = {}
        self.policies: dict[str, Policy] = {}

    def selects(self, selector: PodSelector, one: PodInfo) -> bool:
        if one.host_network or one.phase == "Succeeded" or not selector.pods.matches(one.metadata.labels):
            return False
        if isinstance(selector.namespaces, str):
            return selector.namespaces == one.metadata.namespace
        known = self.namespaces.get(one.metadata.namespace)
        return known is not None and selector.namespaces.matches(known.metadata.labels)

    def members(self, selector: PodSelector) -> dict[str, tuple[object, object]]:
        found = {path: one for path, one in self.pods.items() if one.ips and self.selects(selector, one)}
        return {path: (one.ips, one.ports.named) for path, one in found.items()}

    def policies_of(self, path: str) -> tuple[str, ...]:
        one = self.pods.get(path)
        found = [] if one is None else [p for p in self.policies.values() if self.selects(p.subjects, one)]
        return tuple(p.metadata.path for p in sorted(found, key=lambda p: p.order))


class Both:
    """An index and its naive sibling, which are told the same, and what follows from the changes alone."""

    def __init__(self, used: list[PodSelector]) -> None:
        self.index, self.naive, self.used = PolicyIndex(), Naive(), used
        self.followed: dict[PodSelector, dict[str, tuple[object, object]]] = {one: {} for one in used}
        self.under: dict[str, tuple[str, ...]] = {}
        for one in used:
            self.index.use(one)

    def tell(self, thing: PodInfo | NamespaceInfo | Policy, *, gone: bool) -> None:
        path = thing.metadata.path
        if isinstance(thing, PodInfo):
            change = self.index.set_pod(path, None if gone else thing)
            self.naive.pods.pop(path, None) if gone else self.naive.pods.update({path: thing})
        elif isinstance(thing, NamespaceInfo):
            change = self.index.set_namespace(path, None if gone else thing)
            self.naive.namespaces.pop(path, None) if gone else self.naive.namespaces.update({path: thing})
        else:
            change = self.index.set_policy(path, None if gone else thing)
            self.naive.policies.pop(path, None) if gone else self.naive.policies.update({path: thing})
        self.follow(change)

    def follow(self, change: Change) -> None:
        for move in change.moves:
            kept = self.followed[move.selector]
            for one in move.left:
                assert kept.pop(one.metadata.path) == (one.ips, one.ports.named)
            for one in move.joined:
                assert one.metadata.path not in kept
                kept[one.metadata.path] = (one.ips, one.ports.named)
        concerned = set(change.pods)
        for policy in change.policy or ():
            if policy is not None:
                concerned |= {one.metadata.path for one in self.index.selected(policy)}
        for path in concerned:
            self.under[path] = tuple(p.metadata.path for p in self.index.policies_of(path))

    def agree(self) -> None:
        for selector in self.used:
            assert self.followed[selector] == self.naive.members(selector)
        for path in {f"{space}/{name}" for space in NAMESPACES for name in "pqr"}:
            assert self.under.get(path, ()) == self.naive.policies_of(path)
            for policy in self.naive.policies.values():
                assert self.index.selects(policy, path) is (policy.metadata.path in self.under.get(path, ()))


THINGS = (generated.pods(), generated.pods(), generated.namespaces, generated.policies, generated.cluster_policies)
EVENTS = st.tuples(st.one_of(*THINGS), st.booleans())


@given(st.lists(generated.pod_selectors, max_size=4, unique=True), st.lists(EVENTS, max_size=25))
def test_it_says_and_tells_what_a_walk_over_everything_says(
    used: list[PodSelector], events: list[tuple[PodInfo | NamespaceInfo | Policy, bool]]
) -> None:
    both = Both(used)
    for thing, gone in events:
        both.tell(thing, gone=gone and thing.metadata.path in (both.naive.pods | both.naive.namespaces | both.naive.policies))
        both.agree()


@given(st.lists(generated.pods(), max_size=12), st.lists(generated.namespaces), st.lists(generated.pod_selectors, max_size=6))
def test_members_of_a_selector_that_nobody_used_before(
    pods: list[PodInfo], namespaces: list[NamespaceInfo], selectors: list[PodSelector]
) -> None:
    both = Both([])
    things: list[PodInfo | NamespaceInfo] = [*pods, *namespaces]
    for thing in things:
        both.tell(thing, gone=False)
    for selector in selectors:
        found = [*both.index.members(selector)]
        assert {one.metadata.path: (one.ips, one.ports.named) for one in found} == both.naive.members(selector)
        assert len(found) == len(both.naive.members(selector))
        for path, one in both.naive.pods.items():
            assert both.index.is_member(selector, path) is (bool(one.ips) and both.naive.selects(selector, one))


@given(st.lists(EVENTS, max_size=20))
def test_what_is_gone_leaves_nothing_behind(
    events: list[tuple[PodInfo | NamespaceInfo | Policy, bool]],
) -> None:
    both = Both([PodSelector(EVERYTHING, select(app="x"))])
    for thing, gone in events:
        both.tell(thing, gone=gone)
    for thing, _ in events:
        both.tell(thing, gone=True)
    both.index.release(both.used[0])
    index = both.index
    assert not any((index._namespaces, index._entries, index.policies, index._keys, index._answers))
    for places in (index._by_labels._things, index._selectors._required, index._selectors._mentioned):
        assert not places._one
        assert not places._many
    assert not any((index._selectors._others, index._selectors._places, index._across._others, index._across._places))


def test_a_selector_in_use_is_told_who_joins_and_who_leaves() -> None:
    index = PolicyIndex()
    index.use(WEB)
    web, db = pod("a/one", {"app": "web"}), pod("a/one", {"app": "db"})
    assert index.set_pod("a/one", web) == Change(("a/one",), None, (Move(WEB, (), (web,)),))
    assert index.set_pod("a/one", db) == Change((), None, (Move(WEB, (web,), ()),))
    assert index.set_pod("a/one", None) == Change(("a/one",))


def test_a_selector_is_told_of_nothing_once_it_is_released_as_often_as_used() -> None:
    index = PolicyIndex()
    web = pod("a/one", {"app": "web"})
    index.use(WEB)
    index.use(WEB)
    index.release(WEB)
    assert index.set_pod("a/one", web).moves == (Move(WEB, (), (web,)),)
    index.release(WEB)
    assert index.set_pod("a/one", None).moves == ()


def test_another_address_or_named_port_leaves_and_joins() -> None:
    index = PolicyIndex()
    index.use(WEB)
    one = pod("a/one", {"app": "web"})
    moved = pod("a/one", {"app": "web"}, ips=("10.244.9.9",))
    named = pod("a/one", {"app": "web"}, ips=("10.244.9.9",), ports=(NamedPort("http", "TCP", 80),))
    index.set_pod("a/one", one)
    assert index.set_pod("a/one", moved) == Change(("a/one",), None, (Move(WEB, (one,), (moved,)),))
    assert index.set_pod("a/one", named) == Change(("a/one",), None, (Move(WEB, (moved,), (named,)),))


def test_what_nobody_reads_is_no_change() -> None:
    index = PolicyIndex()
    index.use(WEB)
    index.set_pod("a/one", pod("a/one", {"app": "web"}, phase="Pending"))
    assert index.set_pod("a/one", pod("a/one", {"app": "web"})) is NOTHING
    assert index.set_pod("a/one", pod("a/one", {"app": "web"}, is_terminating=True)) is NOTHING
    assert index.set_pod("a/two", pod("a/two", host_network=True)) is NOTHING
    assert index.set_namespace("a", namespace("a")) is NOTHING
    assert index.set_policy("a/none", None) is NOTHING
    ending = index.pod("a/one")
    assert ending is not None
    assert ending.is_terminating


def test_a_pod_that_has_ended_is_in_no_set_and_its_address_is_free() -> None:
    """N5: the address of a finished Job is another pod's next."""
    index = PolicyIndex()
    index.use(WEB)
    index.set_policy("a/web", NetworkPolicy(PolicyMetadata("web", "a"), select(app="web"), ()))
    job = pod("a/job", {"app": "web"})
    for phase in ("Succeeded", "Failed"):
        index.set_pod("a/job", job)
        assert [p.metadata.name for p in index.policies_of("a/job")] == ["web"]
        ended = index.set_pod("a/job", pod("a/job", {"app": "web"}, phase=phase))
        assert ended == Change(("a/job",), None, (Move(WEB, (job,), ()),))
        assert (index.policies_of("a/job"), [*index.members(WEB)], index.pod("a/job")) == ((), [], None)


def test_a_pod_without_an_address_is_under_its_policies_and_nobodys_peer() -> None:
    """N1: its policies are in place before it has an address that the API knows."""
    index = PolicyIndex()
    index.set_policy("a/web", NetworkPolicy(PolicyMetadata("web", "a"), select(app="web"), ()))
    index.set_pod("a/one", pod("a/one", {"app": "web"}, ips=(), phase="Pending"))
    assert [p.metadata.name for p in index.policies_of("a/one")] == ["web"]
    assert not index.is_member(WEB, "a/one")
    assert [*index.members(WEB)] == []


def test_a_namespaces_label_moves_its_pods_at_once() -> None:
    index = PolicyIndex()
    team = PodSelector(LabelSelector((Requirement("team", "In", ("x",)),)))
    index.use(team)
    pods = [pod(f"a/{number}", {"n": str(number)}) for number in range(3)]
    for one in (*pods, pod("a/none", ips=()), pod("b/other")):
        index.set_pod(one.metadata.path, one)
    (move,) = index.set_namespace("a", namespace("a", {"team": "x"})).moves
    assert (move.selector, [*move.left], [*move.joined]) == (team, [], pods)
    (move,) = index.set_namespace("a", namespace("a", {"team": "y"})).moves
    assert (move.selector, [*move.left], [*move.joined]) == (team, pods, [])


def test_a_namespace_that_is_not_known_is_not_selected_by_its_labels() -> None:
    index = PolicyIndex()
    everybody = PodSelector(EVERYTHING)
    one = pod("a/one")
    index.use(everybody)
    assert index.set_pod("a/one", one).moves == ()
    (move,) = index.set_namespace("a", namespace("a")).moves
    assert [*move.joined] == [one]
    (move,) = index.set_namespace("a", None).moves
    assert [*move.left] == [one]


def test_a_label_that_moves_a_pod_to_other_policies_concerns_it_and_another_does_not() -> None:
    index = PolicyIndex()
    index.set_policy("a/web", NetworkPolicy(PolicyMetadata("web", "a"), select(app="web"), ()))
    index.set_pod("a/one", pod("a/one", {"app": "db"}))
    assert index.set_pod("a/one", pod("a/one", {"app": "db", "tier": "x"})) == Change()
    assert index.set_pod("a/one", pod("a/one", {"app": "web", "tier": "x"})) == Change(("a/one",))
    assert index.set_pod("a/one", pod("a/one", {"tier": "x"})) == Change(("a/one",))


def test_a_policys_own_selector_is_kept_when_nobody_uses_it_as_a_peer_any_more() -> None:
    index = PolicyIndex()
    policy = NetworkPolicy(PolicyMetadata("web", "a"), select(app="web"), ())
    index.set_policy("a/web", policy)
    index.use(policy.subjects)
    index.release(policy.subjects)
    index.set_pod("a/one", pod("a/one", {"app": "web"}))
    assert index.policies_of("a/one") == (policy,)
    index.use(policy.subjects)
    index.set_policy("a/web", None)
    assert [*index.set_pod("a/one", None).moves] == [Move(WEB, (pod("a/one", {"app": "web"}),), ())]


def test_labels_of_a_namespace_lead_its_pods_under_policies_of_the_cluster() -> None:
    index = PolicyIndex()
    guard = ClusterNetworkPolicy(PolicyMetadata("guard"), subjects=PodSelector(select(team="a"), select(app="web")))
    index.set_policy("guard", guard)
    index.set_pod("a/web", pod("a/web", {"app": "web"}))
    index.set_pod("a/db", pod("a/db", {"app": "db"}))
    assert index.is_undecided("a") and index.has_policies("a")
    assert set(index.set_namespace("a", namespace("a")).pods) == {"a/web", "a/db"}, "they have waited for it"
    assert not index.is_undecided("a") and index.policies_of("a/web") == ()
    assert index.set_namespace("a", namespace("a", {"team": "a"})).pods == ("a/web",)
    assert index.policies_of("a/web") == (guard,) and index.selects(guard, "a/web") and not index.selects(guard, "a/db")
    assert [one.metadata.path for one in index.selected(guard)] == ["a/web"]
    assert index.set_namespace("a", namespace("a", {"team": "b"})).pods == ("a/web",)
    index.set_policy("guard", None)
    assert index.set_namespace("a", None) == Change() and not index.is_undecided("a")


def test_labels_that_no_selector_reads_ask_no_selector_again() -> None:
    index = PolicyIndex()
    index.use(WEB)
    for number in range(5):
        moved = pod(f"a/p{number}", {"app": "web", "shard": str(number)})
        assert index.set_pod(f"a/p{number}", moved).moves == (Move(WEB, (), (moved,)),)
    assert len(index._answers) == 1
    shard = PodSelector("a", select(shard="3"))
    index.use(shard)
    for number in range(5):
        assert [one.selector for one in index.set_pod(f"a/p{number}", None).moves] == ([WEB, shard] if number == 3 else [WEB])
    assert len(index._answers) == 5


def test_answers_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podplane.policy.index.KEPT_ANSWERS", 3)
    index = PolicyIndex()
    index.use(PodSelector("a", LabelSelector((Requirement("app", "Exists"),))))
    for number in range(10):
        assert index.set_pod(f"a/p{number}", pod(f"a/p{number}", {"app": str(number)})).moves
        assert len(index._answers) <= 3
