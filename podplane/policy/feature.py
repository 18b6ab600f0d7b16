"""Policies as a feature of a node: a pod interface of the node in, what policies let it send and be sent out; and any set that rules on
this node look into in, its contents out. Pure, but for the memory that is handed in.

    plan_pod    elements of the maps that lead to chains, these chains, the sets that they look into
    plan_set    what is in one of these sets

The memory counts which sets are looked into. When a plan of a pod interface needs a set that is not filled, it waits until that is planned
and in the kernel (`needs`, `fill`); when it is the last that needed one, the set is planned after it (`accept`).
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from podplane.model.cluster_policy import Policy
from podplane.model.objects import Node
from podplane.model.pod_info import PodInfo
from podplane.model.policy import DIRECTIONS, TIERS, Direction, PodSelector, Tier
from podplane.model.view import Policies, Sandbox
from podplane.policy import peers as p
from podplane.policy import tables
from podplane.policy.closing import Closed
from podplane.policy.compiling import (
    SHORT,
    TOGETHER,
    Group,
    Program,
    admin_group,
    baseline_group,
    compile_policy,
    group,
    nothing_of,
)
from podplane.policy.enforced import AllEnforced, Enforced
from podplane.policy.filling import Filling, Told
from podplane.policy.index import Move
from podplane.policy.name_servers import PATH
from podplane.policy.peers import NamedPort, Peers
from podplane.policy.tiers import speaking
from podplane.policy.words import unread_text
from podplane.state.effects import Effect, Forget, JudgeAgain, Plan, Warn
from podplane.state.mac import interface_mac
from podplane.state.nft import GOTO, Chain, Element, Verdict, label
from podplane.state.value import IPAddress, Value, address_of, fragment, text_of

KEPT_PROGRAMS, KEPT_GROUPS, KEPT_SMALL = 2048, 4, 512
"""Of the policies that were compiled last, so many are kept as nf_tables; of the groups of many policies, so many, and of those of few."""
NO_PEERS: frozenset[Peers] = frozenset()


class Need(NamedTuple):
    """A set that is to be filled; `epoch` as in PolicyMemory."""

    epoch: int
    peers: Peers


class PodPlan(Plan, frozen=True, kw_only=True):
    """A plan of one pod interface, whose it is, the node and its IP versions, the sets that its rules look into, what it is under, and the
    chains that it is led to (None: it passes nothing)."""

    owner: Hashable
    node: str
    policies: Policies | None
    is_gone: bool = False
    takes_back: bool = True
    versions: tuple[int, ...] = ()
    chains: tuple[str, ...] | None = None
    peers: frozenset[Peers] = NO_PEERS
    enforced: Enforced | None = None


class SetPlan(Plan, frozen=True, kw_only=True):
    """A plan of a set; `more`: it is to be planned once more, as there is more to take."""

    node: str
    digest: str
    more: bool = False


class PolicyMemory:
    """The sets that rules on one node look into, as plans were accepted, and policies as nf_tables."""

    def __init__(self) -> None:
        self.enforced = AllEnforced()
        self.takes_back = True
        """Do connections end that a change forbids? As the last plan says."""
        self.closed: Closed = {}
        """The pods of which the kernel refuses policies; their plans lead to a drop until it takes these."""
        self._policies: Policies | None = None
        self._versions: tuple[int, ...] = ()
        self._chains: dict[Hashable, tuple[str, ...] | None] = {}
        self._peers: dict[Hashable, frozenset[Peers]] = {}
        """The sets that are there for an interface: those that it needs, and those that it is to need when they are filled."""
        self._counts: Counter[Peers] = Counter()
        self._filled: set[Peers] = set()
        self._epoch = 0
        """How often all sets were to be filled anew: with addresses of another family, or by other policies."""
        self._selectors: dict[str, PodSelector] = {}
        self._sets: dict[str, dict[Peers, None]] = {}
        self._named: dict[str, Peers] = {}
        self._fillings: dict[Peers, Filling] = {}
        self._name_servers: tuple[str, ...] = ()
        self._forbidding: dict[Hashable, frozenset[PodSelector]] = {}
        self._forbidden: Counter[PodSelector] = Counter()
        self._groups: OrderedDict[tuple[object, ...], tuple[list[Program], Group]] = OrderedDict()
        """By the identities of the programs, which are kept beside them."""
        self._small_groups: OrderedDict[tuple[object, ...], tuple[list[Program], Group]] = OrderedDict()
        self._programs: OrderedDict[tuple[str, Direction], tuple[Policy, tuple[int, ...], Program]] = OrderedDict()

    @property
    def selectors(self) -> Mapping[str, PodSelector]:
        """Those whose pods are in sets of this node, by their digests."""
        return self._selectors

    def was_led_elsewhere(self, owner: Hashable, chains: tuple[str, ...] | None) -> bool:
        """Was a pod interface led to other chains than these by its last plan?"""
        return owner in self._chains and self._chains[owner] != chains

    def sets_of(self, selector: str) -> Collection[Peers]:
        """The sets of the pods of a selector."""
        return self._sets.get(selector, ())

    def is_forbidden(self, selector: PodSelector) -> bool:
        """Do rules look into its sets that do more than allow? Who joins it may lose what it had, then."""
        # Asked of each pod of a set: to hash a selector takes 1 µs.
        return bool(self._forbidden) and self._forbidden[selector] > 0

    def program(self, policy: Policy, direction: Direction, versions: tuple[int, ...]) -> Program:
        """A policy and direction as nf_tables: compiled once, as long as it stays what it is."""
        key = (policy.metadata.path, direction)
        known = self._programs.get(key)
        if known is None or known[0] is not policy or known[1] != versions:
            known = self._programs[key] = (policy, versions, compile_policy(policy, direction, versions))
            if len(self._programs) > KEPT_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return known[2]

    def group(self, programs: list[Program], direction: str, versions: tuple[int, ...]) -> Group:
        """The group of these programs: it is known when one of its pods is planned again, or the next one is."""
        key = (direction, versions, *map(id, programs))
        groups, kept = (self._small_groups, KEPT_SMALL) if len(programs) <= TOGETHER else (self._groups, KEPT_GROUPS)
        known = groups.get(key)
        if known is None:
            known = groups[key] = (programs, group(programs, direction, versions))
            if len(groups) > kept:
                groups.popitem(last=False)
        groups.move_to_end(key)
        return known[1]

    def needs(self, plan: PodPlan) -> Collection[Need]:
        """The sets that rules of a plan look into and that are not filled."""
        epoch = self._epoch + self._is_anew(plan)
        return [Need(epoch, one) for one in plan.peers if epoch != self._epoch or one not in self._filled]

    def fill(self, plan: PodPlan, needs: Collection[Hashable]) -> list[Peers]:
        """A plan waits for the sets that it needs. Those of `needs` that have anything to be filled with."""
        self._begin(plan)
        self._keep(plan.owner, plan.peers | self._peers.get(plan.owner, NO_PEERS))
        return [one.peers for one in needs if isinstance(one, Need) and self._fill(one.peers)]

    def _fill(self, peers: Peers) -> bool:
        """Begin to fill a set; is there anything to fill it with, or was there?"""
        former, owners = self._fillings.get(peers), {version: p.set_of(peers, version) for version in self._versions}
        filling = self._fillings[peers] = Filling(peers, owners, self._candidates, former.values if former else ())
        return filling.begin()

    def _candidates(self, selector: PodSelector) -> Sequence[PodInfo]:
        """Its pods, and others; with the cluster's DNS, the other addresses that lead to it."""
        policies = self._policies
        if policies is None:
            return ()
        found, pod = policies.candidates(selector), policies.pod(PATH) if self._name_servers else None
        if pod is None or not policies.is_member(selector, PATH):
            return found
        return [*found, msgspec.structs.replace(pod, ips=self._name_servers)]

    def to_take(self, sets: Iterable[Peers]) -> int:
        """How many pods these sets, which are not filled yet, are to have, or had before."""
        return sum(self._fillings[one].to_take for one in sets)

    def steps(self, peers: Peers) -> Iterator[None]:
        """As often as a set is to be planned until it is filled."""
        while (filling := self._fillings.get(peers)) is not None and not filling.is_filled:
            yield

    def filling(self, digest: str) -> Filling | None:
        """What is in a set, by the set's digest; None: nobody looks into it."""
        peers = self._named.get(digest)
        return None if peers is None else self._fillings.get(peers)

    def change_name_servers(self, ips: tuple[str, ...]) -> list[Peers]:
        """These addresses lead to the cluster's DNS, too. The sets that differ by that."""
        policies, before = self._policies, self._name_servers
        self._name_servers = ips
        pod = policies.pod(PATH) if policies is not None and ips != before else None
        if pod is None or policies is None:
            return []
        old, new = (msgspec.structs.replace(pod, ips=each) for each in (before, ips))
        changed = []
        for name, selector in self._selectors.items():
            if policies.is_member(selector, PATH):
                for peers in self._sets[name]:
                    if (filling := self._fillings.get(peers)) is not None:
                        filling.tell(((selector, old, False), (selector, new, True)))
                        changed.append(peers)
        return changed

    def _with_name_servers(self, pods: Iterable[PodInfo]) -> list[PodInfo]:
        """These pods; with the cluster's DNS, the other addresses that lead to it."""
        found = list(pods)
        if self._name_servers:
            found += [msgspec.structs.replace(one, ips=self._name_servers) for one in found if one.metadata.path == PATH]
        return found

    def _moved(self, move: Move) -> None:
        left, joined = self._with_name_servers(move.left), self._with_name_servers(move.joined)
        told = [*((move.selector, one, False) for one in left), *((move.selector, one, True) for one in joined)]
        for peers in self._sets.get(p.digest_of(move.selector), ()):
            if (filling := self._fillings.get(peers)) is not None:
                filling.tell(told)

    def filled(self, needs: Collection[Hashable]) -> None:
        """These sets are filled."""
        self._filled |= {
            one.peers for one in needs if isinstance(one, Need) and one.epoch == self._epoch and self._counts[one.peers] > 0
        }

    def accept(self, plan: PodPlan) -> list[Peers]:
        """The plan is part of the desired state now. The sets that nobody needs any more."""
        self._begin(plan)
        self.takes_back = plan.takes_back
        self.enforced.put(plan.owner, plan.enforced)
        if plan.is_gone:
            self._chains.pop(plan.owner, None)
        else:
            self._chains[plan.owner] = plan.chains
        self._forbid(plan.owner, plan.enforced)
        return self._keep(plan.owner, plan.peers)

    def _is_anew(self, plan: PodPlan) -> bool:
        """Are all sets to be filled anew?"""
        return plan.versions not in ((), self._versions) or plan.policies is not self._policies

    def _begin(self, plan: PodPlan) -> None:
        if self._is_anew(plan):
            self._epoch += 1
            self._filled.clear()
        self._versions = plan.versions or self._versions
        self.read_from(plan.policies)

    def _keep(self, owner: Hashable, peers: frozenset[Peers]) -> list[Peers]:
        """These sets are there for an interface. Those that are there for none any more."""
        before = self._peers.pop(owner, NO_PEERS)
        if peers:
            self._peers[owner] = peers
        came = [one for one in peers - before if not self._counts[one]]
        self._counts.update(peers - before)
        self._counts.subtract(before - peers)
        gone = [one for one in before - peers if not self._counts[one]]
        for one in came:
            self._add(one)
        for one in gone:
            self._remove(one)
        return gone

    def after_repair(self) -> tuple[JudgeAgain, ...]:
        """What to do after the table was repaired: connections that began meanwhile were judged by nobody."""
        ips = frozenset(map(ipaddress.ip_address, self.enforced.ips_under_policies()))
        return (JudgeAgain(ips),) if ips and self.takes_back else ()

    def read_from(self, policies: Policies | None) -> None:
        """Have moves of pods told by these policies, and no others; None: by none."""
        if policies is self._policies:
            return
        for selector in self._selectors.values():
            if self._policies is not None:
                self._policies.release(selector, self._moved)
            if policies is not None:
                policies.use(selector, self._moved)
        self._policies = policies

    def _forbid(self, owner: Hashable, enforced: Enforced | None) -> None:
        after = frozenset(one for program in (enforced.programs if enforced else ()) for one in program.forbidding)
        before = self._forbidding.pop(owner, frozenset())
        self._forbidden.update(after - before)
        for gone in before - after:
            self._forbidden[gone] -= 1
            if not self._forbidden[gone]:
                del self._forbidden[gone]
        if after:
            self._forbidding[owner] = after

    def _add(self, peers: Peers) -> None:
        self._named[p.digest(peers)] = peers
        for selector in peers.selectors:
            name = p.digest_of(selector)
            if name not in self._selectors and self._policies is not None:
                self._policies.use(selector, self._moved)
            self._selectors[name] = selector
            self._sets.setdefault(name, {})[peers] = None

    def _remove(self, peers: Peers) -> None:
        del self._counts[peers], self._named[p.digest(peers)]
        self._fillings.pop(peers, None)
        self._filled.discard(peers)
        for selector in peers.selectors:
            name = p.digest_of(selector)
            del self._sets[name][peers]
            if not self._sets[name]:
                del self._sets[name], self._selectors[name]
                if self._policies is not None:
                    self._policies.release(selector, self._moved)


def plan_pod(
    owner: Hashable,
    sandbox: Sandbox | None,
    node: Node | None,
    policies: Policies | None,
    memory: PolicyMemory,
    *,
    takes_back: bool = True,
) -> PodPlan:
    """What policies let one pod interface send, and be sent; None: it is gone.

    A pod of which too little is known to say which policies select it has nothing: it passes nothing. Nor does one that can't be planned.
    """
    try:
        return _plan_pod(owner, sandbox, node, policies, memory, takes_back)
    except Exception as error:
        if sandbox is None or node is None:
            raise
        why = Warn(f"on {node.metadata.name}: its policies can't be planned, and it passes nothing: {error!r}")
        ips = p.addresses(sandbox.ips, node_versions(node))
        return PodPlan(
            owner=owner,
            node=node.metadata.name,
            policies=policies,
            takes_back=takes_back,
            effects=(*_judge_again(owner, None, ips, memory), why),
            enforced=Enforced(sandbox.path, tuple(map(str, ips))),
        )


def _plan_pod(
    owner: Hashable,
    sandbox: Sandbox | None,
    node: Node | None,
    policies: Policies | None,
    memory: PolicyMemory,
    takes_back: bool,
) -> PodPlan:
    name = node.metadata.name if node is not None else ""
    plan = functools.partial(PodPlan, owner=owner, node=name, policies=policies, takes_back=takes_back)
    if sandbox is None or node is None or not node.spec.pod_cidrs:
        return plan(is_gone=True, effects=_leave(owner, memory, is_there=sandbox is not None))
    path, versions, selecting = sandbox.path, node_versions(node), tuple[Policy, ...]()
    ips = [ip for ip in map(address_of, sandbox.ips) if ip.version in versions]
    texts, comment = tuple(text_of(ip) for ip in ips), label(*sandbox.reference)
    pod = policies.pod(path) if policies is not None else None
    is_known = pod is not None and sandbox.uid in ("", pod.metadata.uid)  # some runtimes don't say it (CNI_ARGS)
    if not sandbox.namespace:
        pod = None  # a container that is no pod of Kubernetes: no policy selects it
    elif not is_known or (policies is not None and policies.is_undecided(sandbox.namespace)):
        if policies is not None and policies.has_policies(sandbox.namespace):
            effects = _judge_again(owner, None, ips, memory)
            return plan(effects=effects, enforced=Enforced(path, texts))
        pod = None
    else:
        assert policies is not None
        selecting = tuple(policies.policies_of(path))
    mac = interface_mac(sandbox.mac, sandbox.ips)
    led = _Led(selecting, versions, memory, memory.closed.get(owner, frozenset()))
    for direction in DIRECTIONS:
        led.take(direction, ips, comment)
    values = [*led.values, *tables.pod_elements(ips, mac, comment, led.verdicts)]
    values += _local_ports(pod, ips, {port for one in led.chained for port in one.local}, comment) if pod is not None else ()
    return plan(
        versions=versions,
        chains=led.chains,
        fragment=fragment(values, *(one.fragment for one in led.chained)),
        effects=(*_judge_again(owner, led.chains, ips, memory), *_unread(selecting, name), *led.warnings(name)),
        peers=NO_PEERS.union(led.together, *(one.peers for one in led.chained)),
        enforced=Enforced(path, texts, tuple(led.programs), led.groups),
    )


class _Led:
    """Where the packets of a pod are led, by the policies that select it: programs, groups and other values, and the verdict that the pod
    has in the map of each direction."""

    def __init__(
        self, selecting: tuple[Policy, ...], versions: tuple[int, ...], memory: PolicyMemory, closed: frozenset[str]
    ) -> None:
        self._selecting, self._versions, self._memory = selecting, versions, memory
        self._closed = set(closed)
        self._failed: list[tuple[Policy, Exception]] = []
        self._below: list[str] = []
        self.verdicts = dict(tables.PASSES)
        self.programs: list[Program] = []
        self.chained: list[Program] = []
        """Those that have chains of their own; what others allow is in the sets of their groups."""
        self.together: list[Peers] = []
        self.groups: dict[str, Group] = {}
        self.values: list[Value] = []

    @property
    def chains(self) -> tuple[str, ...]:
        """Where it is led first, and after the Admin tier."""
        return (*(verdict.chain for verdict in self.verdicts.values()), *self._below)

    def take(self, direction: Direction, ips: list[IPAddress], comment: str) -> None:
        """Add one direction."""
        short, then = SHORT[direction], tables.PASSES[SHORT[direction]]
        admin, network, baseline = (self._programs(direction, tier) for tier in TIERS)
        if network:
            its = self.groups[short] = self._memory.group(network, short, self._versions)
            self.values.append(its.denied)
            if its.peers is not None and its.allowed is not None:
                self.values += [its.allowed, *(p.set_of(its.peers, version) for version in self._versions)]
                self.together.append(its.peers)
            together = frozenset(its.together)
            self.chained += [one for one in network if one.name not in together]
            then = self._lead(its.chain)
        elif baseline:
            self.chained += baseline
            then = self._lead(baseline_group(baseline, short))
        self.chained += admin
        if admin:
            self._below.append(then.chain)
            self.values += tables.below_admin(short, ips, self._versions, comment, then)
            then = self._lead(admin_group(admin, short))
        decide = [*admin, *(network or baseline)]
        self.verdicts[short] = tables.CLOSED[short] if decide and short in self._closed else then
        self.programs += decide

    def warnings(self, node: str) -> Iterator[Warn]:
        """About the policies that could not be planned."""
        return (Warn(f"on {node}: it can't be planned, and its pods are closed: {why!r}", one) for one, why in self._failed)

    def _programs(self, direction: Direction, tier: Tier) -> list[Program]:
        return [self._program(one, direction) for one in speaking(self._selecting, direction, tier)]

    def _program(self, policy: Policy, direction: Direction) -> Program:
        try:
            return self._memory.program(policy, direction, self._versions)
        except Exception as error:  # of one policy, whatever it is: the others, and the pods of others, go on
            self._failed.append((policy, error))
            self._closed.add(SHORT[direction])
            return nothing_of(policy, direction)

    def _lead(self, chain: Chain) -> Verdict:
        self.values.append(chain)
        return Verdict(GOTO, chain.name)


def _unread(policies: Iterable[Policy], node: str) -> Iterator[Warn]:
    return (Warn(f"on {node}: {unread_text(one, what)}", one) for one in policies for what in one.unread)


def _judge_again(
    owner: Hashable, chains: tuple[str, ...] | None, ips: Collection[IPAddress], memory: PolicyMemory
) -> tuple[Effect, ...]:
    is_wanted = memory.takes_back and memory.was_led_elsewhere(owner, chains)
    return (JudgeAgain(frozenset(ips)),) if ips and is_wanted else ()


def _leave(owner: Hashable, memory: PolicyMemory, *, is_there: bool) -> tuple[Effect, ...]:
    """A pod goes: whoever has its addresses next has none of its connections, wherever others are kept. Or the node's blocks go."""
    ips = frozenset(map(address_of, memory.enforced.ips_of(owner)))
    if not ips:
        return ()
    return (JudgeAgain(ips),) if is_there else (Forget(ips),)


def _local_ports(pod: PodInfo, ips: Collection[IPAddress], ports: Iterable[NamedPort], comment: str) -> Iterator[Element]:
    """Where a pod of this node has the named ports that its policies open."""
    for port in ports:
        for protocol, number in p.numbers(pod, port):
            for ip in ips:
                yield tables.element(p.local_name(port, ip.version), (ip, protocol, number), comment)


def plan_set(digest: str, node: str, memory: PolicyMemory) -> SetPlan:
    """What is in a set that rules on this node look into, after some of the moves that were told.

    The connections of a pod that left are to be judged again, for it may be gone, and the next one with its address be another peer, or
    none; those of one that joined, too, where rules forbid it something.
    """
    filling = memory.filling(digest)
    if filling is None:
        return SetPlan(node=node, digest=digest)
    found = filling.step()
    ips = {ip for pod in _to_judge(found, memory) for ip in pod.ips}
    again = p.addresses((*ips, *filling.lost()), filling.versions)
    values = [value for one in filling.values for value in (filling.owner(one), one) if value is not None]
    return SetPlan(
        node=node,
        digest=digest,
        fragment=fragment(values),
        effects=(JudgeAgain(frozenset(again)),) if again and memory.takes_back else (),
        more=filling.is_filled and not filling.is_current,
    )


def _to_judge(found: Collection[Told], memory: PolicyMemory) -> Iterator[PodInfo]:
    """The pods whose connections are to be judged again after these moves, but for those that were members between them only."""
    joined: set[tuple[PodSelector, PodInfo]] = set()
    leaves = any(not has_joined for _, _, has_joined in found)
    for selector, pod, has_joined in found:
        if has_joined and leaves:
            joined.add((selector, pod))
        if memory.is_forbidden(selector) if has_joined else (selector, pod) not in joined:
            yield pod


def node_versions(node: Node) -> tuple[int, ...]:
    """IP versions of a node's blocks, in order."""
    return tuple(sorted({6 if ":" in block else 4 for block in node.spec.pod_cidrs}))
