"""Which policies select a pod, and which pods a selector has: kept current once a process, for all agents in it.

Objects come in, each answered by a `Change`:

    set_pod(path, pod)  set_namespace(name, namespace)  set_policy(path, policy)            None instead of an object: it is gone

    change.pods         paths of pods whose policies, own addresses or named ports may be others now, or that came or went
    change.policy       (before, after), when a policy came, changed or went: pods that either one selects are concerned (`selects`)
    change.moves        of each selector in use: the pods that left it and those that joined it. A member with another address or other
                        named ports than before leaves as what it was, and joins as what it is

Questions:

    policies_of(path)            the policies that select a pod, in the order in which they decide: what its group is made of
    selects(policy, path)        is this pod under that policy? (asked for the few pods of one node, when a policy changes)
    selected(policy)             all pods under it
    use(selector, told)          count it as in use: its moves are told from now on.  release(selector, told) is the opposite
    members(selector)            its pods that have an address, whether it is in use or not
    candidates(selector)         its pods, and others of its namespaces: who has that may take the time to look at their labels
    is_member(selector, path)    is this pod among them?
    has_address(selector, ip)    has one of the nodes among them this address?
    is_undecided(namespace)      may policies select pods of it by labels that are not known (yet)?
    pod(path)  policy(path)  namespace(name)

Selectors are `model.policy.PodSelector` values: the peers of rules and `policy.subjects`. Equal ones are one, whoever uses them.

Who is in. Pods that have ended are nowhere: their addresses may be another's. Nor are pods on a host network: their addresses are their
node's. A pod without an address is under its policies already (so that these are in place before its first packet), and a member of no
selector. A pod that terminates is both until it is gone. What selects namespaces by labels selects none that is not known (yet). Nodes are
members of selectors in a namespace of their own (`NODES`), with the addresses that they report. The cluster's DNS is a member under a
path of its own (`name_servers`), and under no policy.

How. Selectors stand in an inverted index under a label (of the pod, or of its namespace) that they require (`inverted`), namespaces under
their labels, the pods of a namespace under those that selectors ask for (`labelled_pods`); so a change of labels costs what the selectors
cost that name them, and the members of a new selector cost what they are. No members are kept: memory is that of the objects and labels.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from podplane.model.cluster_policy import NODES, Policy
from podplane.model.objects import Node
from podplane.model.pod_info import NO_LABELS, Labels, NamespaceInfo, PodInfo, SlimMetadata
from podplane.model.policy import LabelSelector, PodSelector, Requirement
from podplane.policy.inverted import Labelled, Selectors
from podplane.policy.labelled_pods import LabelledPods
from podplane.policy.name_servers import PATH as NAME_SERVERS
from podplane.state.value import canonical

OF_NAMESPACE = "namespace:"
"""Before the keys of a namespace's labels where they stand beside the pod's own: no label of a pod has a colon."""


class Move(msgspec.Struct, frozen=True):
    """Pods that left a selector in use, as they were, and those that joined it, as they are."""

    selector: PodSelector
    left: Collection[PodInfo] = ()
    joined: Collection[PodInfo] = ()


class Change(msgspec.Struct, frozen=True):
    """What one object's change means; see the head of the module."""

    pods: tuple[str, ...] = ()
    policy: tuple[Policy | None, Policy | None] | None = None
    moves: tuple[Move, ...] = ()


GATHERED_AT_ONCE = 10_000
"""Of so many pods, a key of labels is gathered when a selector asks for it; others are looked at one by one, this time."""
KEPT_ANSWERS = 4096
"""Which selectors select pods with some labels is kept for so many."""
NOTHING = Change()
Told = Callable[[Move], None]


class _Namespace:
    """A namespace that is known, or that pods are in."""

    __slots__ = ("info", "name", "pods")

    def __init__(self, name: str) -> None:
        self.name = name
        self.info: NamespaceInfo | None = None
        self.pods = LabelledPods()

    @property
    def labels(self) -> Labels | None:
        """None while it isn't known."""
        return None if self.info is None else self.info.metadata.labels

    def is_selected(self, namespaces: str | LabelSelector) -> bool:
        """Is it among these?"""
        if isinstance(namespaces, str):
            return namespaces == self.name
        return self.labels is not None and namespaces.matches(self.labels)

    def beside(self, labels: Labels | None) -> Iterator[tuple[str, str]]:
        """A pod's labels, and with them what selectors read of its namespace."""
        yield OF_NAMESPACE, self.name
        for key, value in (self.labels or NO_LABELS).pairs():
            yield OF_NAMESPACE + key, value
        yield from (labels or NO_LABELS).pairs()


class _Entry:
    """A selector that is in use, or the pods of policies."""

    __slots__ = ("policies", "selector", "users")

    def __init__(self, selector: PodSelector) -> None:
        self.selector = selector
        self.users: list[Told | None] = []
        self.policies: dict[str, Policy] = {}

    def selects(self, namespace: _Namespace, labels: Labels) -> bool:
        return self.selector.pods.matches(labels) and namespace.is_selected(self.selector.namespaces)


class PolicyIndex:
    """See the head of the module."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}
        self._by_labels = Labelled[_Namespace]()
        self._policies: dict[str, Policy] = {}
        self._counts = Counter[str]()
        self._entries: dict[PodSelector, _Entry] = {}
        self._selectors = Selectors[_Entry]()
        self._across = Selectors[_Entry]()
        """Those that select namespaces by labels, by these alone."""
        self._keys = Counter[str]()
        """How many of their requirements read each label of pods."""
        self._answers: dict[tuple[object, ...], tuple[_Entry, ...]] = {}
        """Of a namespace and the labels that selectors read: the selectors that select such pods, as replicas come one after the other.
        None are kept when selectors come or go."""
        self._uses = 0
        """How often selectors are in use, all together: while none is, nobody is told of moves."""
        self._nodes: dict[str, str] = {}
        """Of each address of a node, its path."""

    # Objects.

    @property
    def policies(self) -> Mapping[str, Policy]:
        """All policies, by path: `namespace/name`, or the name alone of one of the whole cluster."""
        return MappingProxyType(self._policies)

    def pod(self, path: str) -> PodInfo | None:
        """A pod that has not ended and has a network of its own."""
        namespace = self._namespaces.get(path.partition("/")[0])
        return None if namespace is None else namespace.pods.by_name.get(path.partition("/")[2])

    def policy(self, path: str) -> Policy | None:
        """A policy."""
        return self._policies.get(path)

    def namespace(self, name: str) -> NamespaceInfo | None:
        """A namespace."""
        found = self._namespaces.get(name)
        return None if found is None else found.info

    def set_pod(self, path: str, pod: PodInfo | None) -> Change:
        """A pod came, changed or went (None)."""
        old, new = self.pod(path), pod if pod is not None and _has_network(pod) else None
        if old == new:
            return NOTHING
        name, _, pod_name = path.partition("/")
        namespace = self._namespaces.get(name) or self._namespaces.setdefault(name, _Namespace(name))
        if new is not None:
            namespace.pods.set(pod_name, new)
        else:
            namespace.pods.remove(pod_name)
        if old is not None and new is not None and old.metadata.labels == new.metadata.labels:
            if _read(old) == _read(new):
                return NOTHING
            return Change((path,), None, self._told(_moves(self._selecting(namespace, new.metadata.labels), old, new)))
        change = self._relabelled(namespace, path, old, new) if self._uses or (old and new) else Change((path,))
        self._forget(namespace)
        return change

    def set_namespace(self, name: str, info: NamespaceInfo | None) -> Change:
        """A namespace came, changed its labels, or went (None)."""
        namespace = self._namespaces.get(name) or self._namespaces.setdefault(name, _Namespace(name))
        before, after = namespace.labels, None if info is None else info.metadata.labels
        candidates = self._across_candidates(before, after)
        if before != after:
            self._by_labels.remove(namespace, (before or NO_LABELS).pairs())
            self._by_labels.add(namespace, (after or NO_LABELS).pairs())
            self._answers.clear()
        namespace.info = info
        moves: list[Move] = []
        # Pods of a namespace that is not known wait, if there are policies that select by its labels.
        paths = dict.fromkeys(namespace.pods.by_name if self._counts[""] and (before is None) != (after is None) else ())
        for entry in candidates:
            selector = entry.selector.namespaces
            assert isinstance(selector, LabelSelector)
            was, is_ = (labels is not None and selector.matches(labels) for labels in (before, after))
            if was == is_:
                continue
            if entry.policies:
                paths |= dict.fromkeys(pod.metadata.name for pod in _pods_of(namespace, entry.selector))
            if entry.users and (pods := [pod for pod in _pods_of(namespace, entry.selector) if pod.ips]):
                moves.append(Move(entry.selector, joined=pods) if is_ else Move(entry.selector, left=pods))
        self._forget(namespace)
        return Change(tuple(f"{name}/{pod}" for pod in paths), None, self._told(moves)) if paths or moves else NOTHING

    def set_node(self, name: str, node: Node | None) -> Change:
        """A node came, changed, or went (None): its labels and addresses are what selectors of nodes see."""
        path = f"{NODES}/{name}"
        before, found = self.pod(path), None if node is None else _as_member(node)
        for ip in before.ips if before is not None else ():
            if self._nodes.get(ip) == path:
                del self._nodes[ip]
        self._nodes |= dict.fromkeys(found.ips if found is not None else (), path)
        change = self.set_pod(path, found)
        return msgspec.structs.replace(change, pods=()) if change.moves else NOTHING  # no policy is about a node

    def set_policy(self, path: str, policy: Policy | None) -> Change:
        """A policy came, changed or went (None)."""
        old = self._policies.get(path)
        if old == policy:
            return NOTHING
        if old is not None:
            del self._policies[path]
            self._counts[old.metadata.namespace] -= 1
            entry = self._entries[old.subjects]
            del entry.policies[path]
            self._drop(entry)
        if policy is not None:
            self._counts[policy.metadata.namespace] += 1
            self._policies[path] = self._entry(policy.subjects).policies[path] = policy
        return Change(policy=(old, policy))

    # Questions.

    def has_policies(self, namespace: str) -> bool:
        """Is there any policy that may be about pods of this namespace?"""
        return self._counts[namespace] > 0 or self._counts[""] > 0

    def is_undecided(self, namespace: str) -> bool:
        """Are there policies that select by labels of namespaces, and is this one not known (yet)?"""
        return self._counts[""] > 0 and self.namespace(namespace) is None

    def policies_of(self, path: str) -> tuple[Policy, ...]:
        """The policies that select a pod, in the order in which they decide; none of a pod that is not there."""
        pod = self.pod(path)
        if pod is None or path == NAME_SERVERS:
            return ()
        entries = self._selecting(self._namespaces[pod.metadata.namespace], pod.metadata.labels)
        return tuple(sorted((one for entry in entries for one in entry.policies.values()), key=lambda one: one.order))

    def selects(self, policy: Policy, path: str) -> bool:
        """Is this pod under that policy?"""
        pod = self.pod(path)
        if pod is None or path == NAME_SERVERS or not policy.subjects.pods.matches(pod.metadata.labels):
            return False
        return self._namespaces[pod.metadata.namespace].is_selected(policy.subjects.namespaces)

    def selected(self, policy: Policy) -> Iterator[PodInfo]:
        """All pods under a policy, with an address or without one."""
        return (pod for pod in self._pods(policy.subjects) if pod.metadata.path != NAME_SERVERS)

    def members(self, selector: PodSelector) -> Iterator[PodInfo]:
        """The pods of a selector that have an address. Not to be read any further once an object has changed."""
        return (pod for pod in self._pods(selector) if pod.ips)

    def candidates(self, selector: PodSelector) -> list[PodInfo]:
        """Its pods, and others of its namespaces whose labels it does not select, with an address or without, as they are now."""
        return [pod for pods in self._candidates(selector) for pod in pods]

    def is_member(self, selector: PodSelector, path: str) -> bool:
        """Is this pod among the members of a selector?"""
        pod = self.pod(path)
        if pod is None or not pod.ips or not selector.pods.matches(pod.metadata.labels):
            return False
        return self._namespaces[pod.metadata.namespace].is_selected(selector.namespaces)

    def namespaces(self, selector: str | LabelSelector) -> list[str]:
        """The names of the namespaces that are known and selected."""
        return [one.name for one in self._namespaces_of(selector) if one.info is not None]

    def has_address(self, selector: PodSelector, ip: str) -> bool:
        """Is this an address of a member of a selector of nodes?"""
        node = self.pod(self._nodes.get(ip, ""))
        return node is not None and self.is_member(selector, node.metadata.path)

    def use(self, selector: PodSelector, told: Told | None = None) -> None:
        """Have its moves among those of changes from now on, until it is released as often as it was used. `told` is called with each."""
        self._entry(selector).users.append(told)
        self._uses += 1

    def release(self, selector: PodSelector, told: Told | None = None) -> None:
        """The opposite of `use`."""
        entry = self._entries[selector]
        entry.users.remove(told)
        self._uses -= 1
        self._drop(entry)

    # Pods.

    def _forget(self, namespace: _Namespace) -> None:
        if namespace.info is None and not namespace.pods:
            del self._namespaces[namespace.name]

    def _relabelled(self, namespace: _Namespace, path: str, old: PodInfo | None, new: PodInfo | None) -> Change:
        """The change of a pod that came, went or has other labels."""
        moves: list[Move] = []
        concerned = old is None or new is None or _read(old) != _read(new)
        if old is None or new is None or concerned:
            before, after = (() if one is None else self._selecting(namespace, one.metadata.labels) for one in (old, new))
        else:
            before, after = self._differing(namespace, old.metadata.labels, new.metadata.labels)
        left, joined = dict.fromkeys(before), dict.fromkeys(after)
        for entry in left | joined:
            was, is_ = entry in left, entry in joined
            concerned |= was != is_ and bool(entry.policies)
            if entry.users:
                moves += _moves((entry,), old if was else None, new if is_ else None)
        return Change((path,) if concerned else (), None, self._told(moves))

    def _told(self, moves: Iterable[Move]) -> tuple[Move, ...]:
        found = tuple(moves)
        for move in found:
            for told in self._entries[move.selector].users:
                if told is not None:
                    told(move)
        return found

    # Selectors.

    def _differing(self, namespace: _Namespace, before: Labels, after: Labels) -> Iterator[list[_Entry]]:
        """Those that select the first, and those that select the second, of the selectors that select one and not the other; and some
        that select both."""
        candidates = self._selectors.candidates_of_change(namespace.beside(before), namespace.beside(after))
        return ([one for one in candidates if one.selects(namespace, labels)] for labels in (before, after))

    def _selecting(self, namespace: _Namespace, labels: Labels) -> Collection[_Entry]:
        """All selectors that select pods of a namespace with these labels. Labels that no selector reads make no difference."""
        read = (namespace.name, *(pair for pair in labels.pairs() if pair[0] in self._keys))
        found = self._answers.get(read)
        if found is None:
            if len(self._answers) >= KEPT_ANSWERS:
                self._answers.clear()
            candidates = self._selectors.candidates(namespace.beside(labels))
            found = self._answers[read] = tuple(one for one in candidates if one.selects(namespace, labels))
        return found

    def _across_candidates(self, before: Labels | None, after: Labels | None) -> Collection[_Entry]:
        if before is not None and after is not None:
            return self._across.candidates_of_change(before.pairs(), after.pairs())
        found = [self._across.candidates(labels.pairs()) for labels in (before, after) if labels is not None]
        return found[0] if found else ()

    def _entry(self, selector: PodSelector) -> _Entry:
        entry = self._entries.get(selector)
        if entry is None:
            entry = self._entries[selector] = _Entry(selector)
            self._selectors.add(entry, _requirements(selector))
            self._keys.update(one.key for one in selector.pods.requirements)
            self._answers.clear()
            if isinstance(selector.namespaces, LabelSelector):
                self._across.add(entry, selector.namespaces.requirements)
        return entry

    def _drop(self, entry: _Entry) -> None:
        """Forget a selector that nobody needs any more."""
        if entry.users or entry.policies:
            return
        selector = entry.selector
        del self._entries[selector]
        self._selectors.remove(entry, _requirements(selector))
        for one in selector.pods.requirements:
            self._keys[one.key] -= 1
            if not self._keys[one.key]:
                del self._keys[one.key]
        self._answers.clear()
        if isinstance(selector.namespaces, LabelSelector):
            self._across.remove(entry, selector.namespaces.requirements)

    def _pods(self, selector: PodSelector) -> Iterator[PodInfo]:
        for pods in self._candidates(selector):
            yield from _matching(pods, selector.pods)

    def _candidates(self, selector: PodSelector) -> Iterator[Collection[PodInfo]]:
        """The pods of each namespace that is selected, those without that the pods' labels rule out at once."""
        room, requirements = GATHERED_AT_ONCE, selector.pods.requirements
        for namespace in self._namespaces_of(selector.namespaces):
            if requirements:
                room -= namespace.pods.gather(requirements, room)
            yield namespace.pods.candidates(requirements)

    def _namespaces_of(self, namespaces: str | LabelSelector) -> list[_Namespace]:
        """Those that are selected."""
        if isinstance(namespaces, str):
            found = self._namespaces.get(namespaces)
            return [] if found is None else [found]
        listed = self._by_labels.candidates(namespaces.requirements)
        candidates = self._namespaces.values() if listed is None else listed[1]
        return [one for one in candidates if one.is_selected(namespaces)]


def _requirements(selector: PodSelector) -> Iterator[Requirement]:
    """What a selector requires of a pod's labels with those of its namespace beside them (`_Namespace.beside`)."""
    yield from selector.pods.requirements
    if isinstance(selector.namespaces, str):
        yield Requirement(OF_NAMESPACE, "In", (selector.namespaces,))
    else:
        yield from (one._replace(key=OF_NAMESPACE + one.key) for one in selector.namespaces.requirements)


def _pods_of(namespace: _Namespace, selector: PodSelector) -> Iterator[PodInfo]:
    """The pods of a namespace whose labels are selected."""
    namespace.pods.gather(selector.pods.requirements, GATHERED_AT_ONCE)
    return _matching(namespace.pods.candidates(selector.pods.requirements), selector.pods)


def _matching(pods: Iterable[PodInfo], selector: LabelSelector) -> Iterator[PodInfo]:
    if not selector.requirements:
        yield from pods
        return
    for pod in pods:
        if selector.matches(pod.metadata.labels):
            yield pod


def _moves(entries: Iterable[_Entry], old: PodInfo | None, new: PodInfo | None) -> Iterator[Move]:
    """Those of a pod that some selectors had as `old` and have as `new`."""
    left, joined = (() if pod is None or not pod.ips else (pod,) for pod in (old, new))
    if old is not None and new is not None and _as_peer(old) == _as_peer(new):
        return
    if left or joined:
        yield from (Move(entry.selector, left, joined) for entry in entries if entry.users)


def _as_member(node: Node) -> PodInfo:
    """A node as selectors of nodes see it; its addresses in their canonical text."""
    metadata = SlimMetadata(node.metadata.name, NODES, node.metadata.uid, Labels(node.metadata.labels))
    return PodInfo(metadata, ips=tuple(_ips(node)), phase="Running")


def _ips(node: Node) -> Iterator[str]:
    for one in dict.fromkeys(one.address for one in node.status.addresses):
        with contextlib.suppress(ValueError):  # names of hosts are among them
            yield canonical(one)


def _has_network(pod: PodInfo) -> bool:
    """Is it subject to policies, and a peer of others when it has an address?"""
    return not pod.host_network and not pod.has_ended


def _as_peer(pod: PodInfo) -> object:
    """What sets of peers have of it."""
    return pod.ips, pod.ports.named


def _read(pod: PodInfo) -> object:
    """What concerns it itself, its labels aside."""
    return pod.metadata.uid, pod.node, pod.ips, pod.ports.named
