"""Strange but valid objects of every served kind, made of the published shapes by a seeded generator.

A generated object is the least that its kind needs, and more fields by chance. What the rules of its kind refuse (a Status names the
fields) is taken out again by `repaired`, until the API accepts it: so no rule of any kind is written twice.
"""

from __future__ import annotations

import base64
import copy
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podplane.apiserver import shapes
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.shapes import Shape
from tests.unit.apiserver.test_kinds import LEAST

Object = dict[str, Any]
STORED = [row for row in RESOURCES if not row.is_review]
BY_ID = {row.id: row for row in STORED}
DEPTH = 12
"""Definitions that refer to themselves (JSONSchemaProps) end here."""
SEGMENTS = re.compile(r"[^.\[\]]+|\[[^\]]*\]")

NAMES = ("a", "web", "web-0", "x1", "0", "a.b", "n" * 63, "b" + "-c.d" * 60, "node1", "svc", "true", "null", "1e3")
NAMES_OF: Mapping[str, Sequence[str]] = {
    "ipaddresses.networking.k8s.io": ("10.96.0.9", "192.0.2.7", "2001:db8::1"),
    "customresourcedefinitions.apiextensions.k8s.io": ("things.example.org",),
}
"""Of kinds whose names say what they are."""
LABEL_KEYS = ("app", "tier", "example.org/Part_of", "K" * 63, "kubernetes.io/hostname", "topology.kubernetes.io/zone")
LABEL_VALUES = ("", "a", "web", "v" * 63, "A.b_c-D", "true", "1", "node1")
TEXTS = (
    "",
    "a",
    "x y",
    "ü ß 漢字 🐍",
    "\u202eright to left",
    "tab\tline\nnext",
    "\x1b[31mred",
    "%s {0} $(A)",
    "<none>",
    "z" * 300,
)
IPS = (
    "10.9.9.9",
    "192.0.2.7",
    "192.168.1.10",
    "203.0.113.10",
    "10.244.1.77",
    "2001:db8::1",
    "fd00:192:168:1::a",
    "2001:db8::0:a:b",
)
CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "::/0", "2001:db8::/32", "172.30.0.0/24")
HOSTS = ("example.org", "*.example.org", "a.b.c", "localhost")
PORT_NAMES = ("http", "dns-tcp", "a", "x-1")
QUANTITIES = ("0", "1", "100m", "1Gi", "1.5", "2e3", "9E", "123456789n", "0.5Ki")
NUMBERS = (0, 1, 2, 3, 10, 80, 443, 8080, 10256, 65535, 2**31 - 1)
TIMES = ("2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z")
TEXT_POOLS: Mapping[str, Sequence[Any]] = {
    "ip": IPS,
    "podIP": IPS,
    "hostIP": IPS,
    "address": IPS,
    "addresses": IPS,
    "externalIPs": IPS,
    "loadBalancerIP": IPS,
    "cidr": CIDRS,
    "except": CIDRS,
    "cidrs": CIDRS,
    "podCIDR": CIDRS,
    "podCIDRs": CIDRS,
    "loadBalancerSourceRanges": CIDRS,
    "host": HOSTS,
    "hosts": HOSTS,
    "hostname": ("a", "web-0", "example.org"),
    "externalName": HOSTS,
    "name": NAMES,
    "namespace": ("default", "odd", "nowhere"),
    "generateName": ("g-",),
    "key": LABEL_KEYS,
    "topologyKey": LABEL_KEYS,
    "values": LABEL_VALUES,
    "operator": ("In", "NotIn", "Exists", "DoesNotExist", "Equal", "Gt", "Lt"),
    "image": ("podplane/echo", "host/sleep", "no/such:image", "podplane/client"),
    "nodeName": ("node1", "node2", "gone"),
    "protocol": ("TCP", "UDP", "SCTP"),
    "addressType": ("IPv4", "IPv6", "FQDN"),
    "finalizers": ("example.org/wait",),
    "kind": ("Pod", "Service", "ConfigMap", "User", "Group", "ServiceAccount", "ClusterRole", "Role"),
    "path": ("/", "/tmp", "/a/b", "a"),
    "mountPath": ("/data", "/tmp/x"),
    "schedulerName": ("default-scheduler", "nobody"),
}
"""What a text may be, by the name of its field; for others TEXTS."""
NUMBER_POOLS: Mapping[str, Sequence[int]] = dict.fromkeys(("replicas", "parallelism", "completions"), (0, 1, 2, 3))
"""By the name of the field: how many pods somebody wants is bounded."""
COMMANDS = (["sleep", "60"], ["true"], ["false"], ["sh", "-c", "echo ü; exit 3"], ["cat"], ["no-such-program"])
"""Generated pods run nothing else."""
KEPT_AS_THEY_ARE = frozenset({"apiVersion", "kind", "managedFields", "resourceVersion", "uid", "deletionTimestamp", "selfLink"})
LEFT_OUT = frozenset({"command", "args", "hostPath", "resizePolicy", "initContainers", "ephemeralContainers"})
"""What a generated pod doesn't get from chance: it runs commands of this machine."""


class Generator:
    """Objects by one source of chance; `density` is how many of the optional fields they have."""

    def __init__(self, chance: random.Random, density: float = 0.2) -> None:
        self.chance, self.density = chance, density

    def object(self, row: Resource) -> Object:
        """An object of this kind, without its namespace."""
        shape = row.shape()
        assert shape is not None
        made = _merged(self.value(replaced(shape), row.plural), copy.deepcopy(LEAST[row.id]))
        made |= {"apiVersion": row.group_version, "kind": row.kind, "metadata": self.metadata(row)}
        if row.id == "endpointslices.discovery.k8s.io":
            for port in made.get("ports", ()):
                port.setdefault("port", 80)  # kubectl itself ends in a panic at a port without a number, which is valid
        for container in _containers(made):
            container["command"] = self.chance.choice(COMMANDS)
            container["image"] = "host/sh" if self.chance.random() < 0.5 else container["image"]
        return made

    def metadata(self, row: Resource) -> Object:
        """Name, labels, annotations; finalizers and owners seldom."""
        names = NAMES_OF.get(row.id) or [name for name in NAMES if not row.name_rule(name)]
        made: Object = {"name": self.chance.choice(names), "labels": self.labels(row)}
        if self.chance.random() < 0.3:
            made["annotations"] = {self.chance.choice(LABEL_KEYS): self.chance.choice(TEXTS)}
        if self.chance.random() < 0.05:
            made["finalizers"] = ["example.org/wait"]
        if self.chance.random() < 0.05:
            owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": self.chance.choice(NAMES), "uid": "no-such-uid"}
            made["ownerReferences"] = [owner]
        return made

    def labels(self, row: Resource) -> Object:
        """Few keys and values, so that selectors match; an EndpointSlice is of some Service."""
        made = {self.chance.choice(LABEL_KEYS): self.chance.choice(LABEL_VALUES) for _ in range(self.chance.randrange(4))}
        if row.id == "endpointslices.discovery.k8s.io":
            made["kubernetes.io/service-name"] = self.chance.choice(("a", "web", "svc", "kubernetes"))
        return made

    def status(self, row: Resource) -> Object:
        """A status of this kind."""
        shape = row.shape()
        assert shape is not None
        found: Object = self.value(shape.fields["status"], "status")
        return found if self.chance.random() < 0.5 else self._with_gaps(found)

    def _with_gaps(self, value: Any) -> Any:
        """Without some of the fields: the API asks nothing of a status but types."""
        if isinstance(value, dict):
            return {key: self._with_gaps(inner) for key, inner in value.items() if self.chance.random() < 0.8}
        return [self._with_gaps(inner) for inner in value] if isinstance(value, list) else value

    def value(self, shape: Shape, name: str, depth: int = 0) -> Any:
        """What this shape allows; `name` is that of its field."""
        chance = self.chance
        if shape.enum:
            return chance.choice(shape.enum)
        match shape.kind:
            case shapes.OBJECT:
                return self._object(shape, depth)
            case shapes.LIST:
                assert shape.items is not None
                return [self.value(shape.items, name, depth + 1) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
            case shapes.MAP:
                assert shape.items is not None
                keys = [chance.choice((*LABEL_KEYS, "a", "b")) for _ in range(chance.randrange(3))]
                return {key: self.value(shape.items, name, depth + 1) for key in keys}
            case shapes.STRING:
                return self._text(shape, name)
            case shapes.INTEGER:
                return chance.choice(NUMBER_POOLS.get(name, NUMBERS))
            case shapes.NUMBER:
                return chance.choice((0, 1.5, -2))
            case shapes.BOOLEAN:
                return chance.random() < 0.5
            case shapes.INT_OR_STRING:
                return chance.choice((*NUMBERS, *PORT_NAMES, "25%", "100%"))
            case shapes.QUANTITY:
                return chance.choice(QUANTITIES)
        return {} if shape.kind == shapes.ANY_OBJECT else chance.choice(({}, {"a": [1, None]}))

    def _object(self, shape: Shape, depth: int) -> Object:
        made: Object = {}
        for name, one in shape.fields.items():
            if name in KEPT_AS_THEY_ARE or name in LEFT_OUT or depth > DEPTH:
                continue
            if name in shape.required or self.chance.random() < self.density:
                made[name] = self.value(one, name, depth + 1)
        return made

    def _text(self, shape: Shape, name: str) -> str:
        if shape.format == "date-time":
            return str(self.chance.choice(TIMES))
        text = str(self.chance.choice(TEXT_POOLS.get(name, TEXTS)))
        return base64.b64encode(text.encode()).decode() if shape.format == "byte" else text


def replaced(shape: Shape) -> Shape:
    """A kind's shape without what every object has (metadata is made apart)."""
    fields = {name: one for name, one in shape.fields.items() if name not in ("metadata", "status")}
    return Shape(shapes.OBJECT, fields=fields)


def _merged(more: Any, least: Any) -> Any:
    """What chance made, under the least that is needed."""
    if isinstance(more, dict) and isinstance(least, dict):
        return {key: _merged(more.get(key), least.get(key)) for key in [*least, *(k for k in more if k not in least)]}
    return more if least is None else least


def _containers(value: Any) -> Iterator[Object]:
    """All containers of an object's pods."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "containers" and isinstance(inner, list):
                yield from (one for one in inner if isinstance(one, dict) and "image" in one)
            else:
                yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def repaired(made: Object, status: Mapping[str, Any]) -> Object | None:
    """The object without the fields that this refusal names; None when it names none that can be taken out."""
    made = copy.deepcopy(made)
    causes = (status.get("details") or {}).get("causes") or []
    taken = [_without(made, cause.get("field", ""), cause["reason"] == "FieldValueRequired") for cause in causes]
    return made if any(taken) else None


def _without(made: Object, path: str, holder_too: bool) -> bool:
    """Take out what stands at a path, or what holds it where something is missing in it."""
    steps: list[str | int] = []
    for part in SEGMENTS.findall(path):
        inner = part[1:-1]
        steps.append(int(inner) if part[0] == "[" and inner.isdecimal() else inner if part[0] == "[" else part)
    at: Any = made
    holders: list[tuple[Any, str | int]] = []
    for step in steps:
        if not (isinstance(at, dict) and step in at) and not (
            isinstance(at, list) and isinstance(step, int) and step < len(at)
        ):
            break
        holders.append((at, step))
        at = at[step]
    if holder_too and len(holders) == len(steps):
        holders.pop()
    if not holders or holders[-1][1] in ("metadata", "spec") or holders[0][1] in ("metadata", "kind"):
        return False
    holder, step = holders[-1]
    del holder[step]
    return True
