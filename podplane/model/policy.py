"""networking.k8s.io/v1 NetworkPolicy as planners and verdicts read it: every default resolved, every selector in one canonical form.
What it has in common with ClusterNetworkPolicy (`model.cluster_policy`) is here.

`from_json` decodes the JSON of an object straight into these classes. Two selectors that are written differently and say the same of
`matchLabels`, order and repetition are equal and hash alike; so what is kept for each selector is kept once. Texts that many policies share
are in memory once, and so are equal selectors.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from sys import intern
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import msgspec

from podplane.model.objects import Model

SHARED = 16384
"""The last used selectors, requirements and ports that policies share: what a cluster has too many of is not kept."""
PROTOCOLS = ("TCP", "UDP", "SCTP")
"""Those that a port of a policy can name (core/v1 Protocol)."""
IPV4 = re.compile(r"0*([0-9]{1,3})\.0*([0-9]{1,3})\.0*([0-9]{1,3})\.0*([0-9]{1,3})")
DIGITS = re.compile("[0-9]{1,9}")
T = TypeVar("T", bound=Hashable)
V = TypeVar("V")
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
Direction = Literal["ingress", "egress"]
Action = Literal["Accept", "Deny", "Pass"]
Tier = Literal["Admin", "NetworkPolicy", "Baseline"]
TIERS: tuple[Tier, ...] = ("Admin", "NetworkPolicy", "Baseline")
"""In the order in which they decide."""
DIRECTIONS: tuple[Direction, ...] = ("egress", "ingress")
"""In the order in which a flow passes them."""


class Requirement(NamedTuple):
    """One condition on one label; `values` are sorted, each once, and there are none of `Exists` and `DoesNotExist`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


_HOLDS: Mapping[str, Callable[[str | None, tuple[str, ...]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}
"""Does the value of a label fulfil a requirement? One that is absent (None) fulfils `NotIn` (apimachinery, labels/selector.go)."""


class LabelSelector(NamedTuple):
    """meta/v1 LabelSelector: all requirements hold. One without any selects everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, requirements: Iterable[Requirement]) -> LabelSelector:
        """That of requirements in any order, some of them perhaps twice."""
        return cls(tuple(sorted({Requirement(one.key, one.operator, tuple(sorted(set(one.values)))) for one in requirements})))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Does it select what has these labels?"""
        for key, operator, values in self.requirements:  # noqa: SIM110  # of each pod and selector: `all` takes twice the time
            if not _HOLDS[operator](labels.get(key), values):
                return False
        return True


EVERYTHING = LabelSelector()


class PodSelector(NamedTuple):
    """Pods of some namespaces: of the one of this name, or of all whose labels are selected."""

    namespaces: str | LabelSelector
    pods: LabelSelector = EVERYTHING


class IPBlock(NamedTuple):
    """Addresses of a network, but for those of others within it; all in their canonical text, without host bits."""

    cidr: str
    excepts: tuple[str, ...] = ()


Peer = PodSelector | IPBlock


class PolicyPort(NamedTuple):
    """Ports of one protocol: all of them (None), those from a number to a number, or those that a pod gives this name."""

    protocol: str = "TCP"
    port: tuple[int, int] | str | None = None


class PolicyRule(NamedTuple):
    """What one rule is about, and what becomes of that: both a peer and a port have to match. None is all: all peers; all ports and all
    protocols. () is none. `name` is for people."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[PolicyPort, ...] | None = None
    action: Action = "Accept"
    name: str = ""


Rules = tuple[PolicyRule, ...]


class PolicyMetadata(Model, frozen=True):
    """ObjectMeta, as far as policies need it."""

    name: str = ""
    namespace: str = ""
    uid: str = ""

    @property
    def path(self) -> str:
        """`namespace/name`, or the name alone of a cluster-scoped policy."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class NetworkPolicy(Model, frozen=True):
    """What a NetworkPolicy allows the pods of its namespace that it selects.

    `ingress` and `egress` are None when it says nothing about that direction (`policyTypes`), and () when it allows nothing there.
    `unread` has a sentence for each part that a later version of Kubernetes may know: it allows nothing, as the API wants it, and a
    `podSelector` with such a part selects all pods of the namespace.
    """

    short: ClassVar = "np"
    tier: ClassVar[Tier] = "NetworkPolicy"
    metadata: PolicyMetadata = PolicyMetadata()
    pods: LabelSelector = EVERYTHING
    ingress: Rules | None = None
    egress: Rules | None = None
    unread: tuple[str, ...] = ()

    @property
    def subjects(self) -> PodSelector:
        """The pods that it selects."""
        return PodSelector(self.metadata.namespace, self.pods)

    @property
    def text(self) -> str:
        """How people call it."""
        return self.metadata.path

    @property
    def full_text(self) -> str:
        """The same with its kind, where that is not clear from what is around it."""
        return f"NetworkPolicy {self.text}"

    @property
    def order(self) -> tuple[int, int, str]:
        """Those with the lesser one decide first; among NetworkPolicies there is no difference."""
        return TIERS.index(self.tier), 0, self.metadata.path

    def rules(self, direction: Direction) -> Rules | None:
        """Those of one direction; None when it says nothing about it."""
        return self.ingress if direction == "ingress" else self.egress

    @classmethod
    def from_json(cls, raw: bytes | msgspec.Raw) -> NetworkPolicy:
        """Decode a NetworkPolicy. msgspec.MsgspecError when it is none."""
        return cls._of(_policies.decode(raw))

    @classmethod
    def with_json(cls, raw: bytes | msgspec.Raw) -> tuple[NetworkPolicy, bytes]:
        """The same, and the JSON of what was read of it, which `from_json` reads alike."""
        policy = _policies.decode(raw)
        return cls._of(policy), msgspec.json.encode(policy)

    @classmethod
    def _of(cls, policy: _Policy) -> NetworkPolicy:
        spec, namespace, unread = policy.spec, intern(policy.metadata.namespace), list[str]()
        types = spec.policy_types or (("Ingress", "Egress") if spec.egress else ("Ingress",))
        unread += [f"policyTypes: {one!r} is not known" for one in types if one not in ("Ingress", "Egress")]
        pods = read_part(lambda: selector_of(spec.pod_selector), "podSelector", unread)
        return cls(
            PolicyMetadata(policy.metadata.name, namespace, policy.metadata.uid),
            EVERYTHING if pods is None else shared(pods),
            _rules("ingress", spec.ingress, namespace, unread) if "Ingress" in types else None,
            _rules("egress", spec.egress, namespace, unread) if "Egress" in types else None,
            tuple(unread),
        )


# What is read of the JSON; none of it is kept.


class _Requirement(Model, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] | None = None


class JsonSelector(Model, frozen=True):
    """meta/v1 LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[_Requirement, ...] | None = None


class _IPBlock(Model, frozen=True):
    cidr: str
    excepts: tuple[str, ...] | None = msgspec.field(default=None, name="except")


class _Peer(Model, frozen=True):
    pod_selector: JsonSelector | None = None
    namespace_selector: JsonSelector | None = None
    ip_block: _IPBlock | None = None


class _Port(Model, frozen=True):
    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class _Rule(Model, frozen=True):
    ports: tuple[_Port, ...] | None = None
    from_: tuple[_Peer, ...] | None = msgspec.field(default=None, name="from")
    to: tuple[_Peer, ...] | None = None


class _Spec(Model, frozen=True):
    pod_selector: JsonSelector | None = None
    policy_types: tuple[str, ...] | None = None
    ingress: tuple[_Rule, ...] | None = None
    egress: tuple[_Rule, ...] | None = None


class _Policy(Model, frozen=True):
    metadata: PolicyMetadata
    spec: _Spec = _Spec()


_policies = msgspec.json.Decoder(_Policy)


def read_part(part: Callable[[], V], where: str, unread: list[str]) -> V | None:
    """A part of a policy; None, and a sentence in `unread`, if it can't be read."""
    try:
        return part()
    except ValueError as error:
        unread.append(f"{where}: {error}")
        return None


def _rules(direction: Direction, rules: tuple[_Rule, ...] | None, namespace: str, unread: list[str]) -> Rules:
    return tuple([_rule(rule, namespace, f"{direction} rule {number}", unread) for number, rule in enumerate(rules or (), 1)])


def _rule(rule: _Rule, namespace: str, where: str, unread: list[str]) -> PolicyRule:
    peers = [read_part(functools.partial(_peer, one, namespace), where, unread) for one in rule.from_ or rule.to or ()]
    ports = [read_part(functools.partial(_port, one), where, unread) for one in rule.ports or ()]
    return PolicyRule(
        tuple([shared(one) for one in peers if one is not None]) if peers else None,
        tuple([shared(one) for one in ports if one is not None]) if ports else None,
    )


def _peer(peer: _Peer, namespace: str) -> Peer:
    """ValueError for one of a kind that is not known: it has none of the fields that are."""
    if peer.ip_block is not None:
        return IPBlock(network(peer.ip_block.cidr), tuple(sorted(set(map(network, peer.ip_block.excepts or ())))))
    if peer.pod_selector is None and peer.namespace_selector is None:
        raise ValueError("a peer without podSelector, namespaceSelector and ipBlock is not known")
    where = peer.namespace_selector
    return PodSelector(namespace if where is None else selector_of(where), selector_of(peer.pod_selector))


def _port(port: _Port) -> PolicyPort:
    protocol, first = port.protocol or "TCP", port.port
    if protocol not in PROTOCOLS:
        raise ValueError(f"the protocol {protocol!r} is not known")
    if not isinstance(first, int):
        return PolicyPort(intern(protocol), first or None)
    return PolicyPort(intern(protocol), (first, port.end_port or first))


def selector_of(selector: JsonSelector | None) -> LabelSelector:
    """In its canonical form; None selects everything. ValueError for one that can't be read."""
    if selector is None:
        return EVERYTHING
    labels = [Requirement(intern(key), "In", (intern(value),)) for key, value in (selector.match_labels or {}).items()]
    return LabelSelector.of((*labels, *map(_requirement, selector.match_expressions or ())))


def _requirement(one: _Requirement) -> Requirement:
    if one.operator not in _HOLDS:
        raise ValueError(f"the operator {one.operator!r} is not known")
    return Requirement(intern(one.key), cast(Operator, one.operator), one.values or ())


@functools.lru_cache(SHARED)
def network(text: str) -> str:
    """A CIDR in its canonical text. Like Kubernetes it takes leading zeros and host bits (ParseCIDRSloppy). ValueError for what is none."""
    address, _, length = text.partition("/")
    if found := IPV4.fullmatch(address):
        a, b, c, d = map(int, found.groups())
        return _ipv4(a, b, c, d, int(length) if DIGITS.fullmatch(length) else -1)
    if ":" not in address or "%" in address or not DIGITS.fullmatch(length):
        raise ValueError(f"{text!r} is no CIDR")
    whole = ipaddress.IPv6Network(f"{address}/{length}", strict=False)
    mapped = whole.network_address.ipv4_mapped
    if mapped is not None and whole.prefixlen >= 96:  # Go reads ::ffff:10.0.0.0/104 as 10.0.0.0/8
        return f"{mapped}/{whole.prefixlen - 96}"
    return str(whole)


def _ipv4(a: int, b: int, c: int, d: int, length: int) -> str:
    """The same of its five numbers (a length of -1 is none): a policy may have ten thousand, and `ipaddress` takes five times as long."""
    if max(a, b, c, d) > 255 or not 0 <= length <= 32:
        raise ValueError(f"{a}.{b}.{c}.{d} with the length {length} is no CIDR")
    number = (a << 24 | b << 16 | c << 8 | d) >> (32 - length) << (32 - length)
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/{length}"


@functools.lru_cache(SHARED, typed=True)
def _interned(value: Hashable) -> Any:
    return value


def shared(value: T) -> T:
    """The same object for equal values."""
    return cast(T, _interned(value))
