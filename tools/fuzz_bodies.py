"""Bodies for `tools.fuzz_api` that the published shapes of built-in kinds do not make: custom kinds of podplane, and protobuf."""

from __future__ import annotations

import base64
import datetime
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from podplane.agent.caches import CLUSTER_POLICIES, NAMESPACES, PODS, POLICIES
from podplane.agent.leases import LEASES
from podplane.apiserver import protobuf, shapes, wire
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.protobuf import EXTENSIONS, META
from podplane.apiserver.shapes import Shape
from podplane.apiserver.store import Stored
from podplane.dns import config, config_text, default_config
from podplane.dns.message import name_of
from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.lease import Lease
from podplane.model.objects import Node
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.model.service import EndpointSlice, Service
from podplane.policy.index import PolicyIndex
from podplane.services import pools

Object = dict[str, Any]
LABELS = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]}
PEERS: tuple[Object, ...] = (
    {"namespaces": LABELS},
    {"pods": {"namespaceSelector": {}, "podSelector": LABELS}},
    {"nodes": {}},
    {"networks": ["10.0.0.0/8", "2001:db8::/32"]},
    {"domainNames": ["*.example.org"]},
)
PROTOCOLS: tuple[Object, ...] = (
    {"tcp": {"destinationPort": {"number": 80}}},
    {"udp": {"destinationPort": {"range": {"start": 53, "end": 60}}}},
    {"sctp": {}},
    {"destinationNamedPort": "http"},
)
ADDRESSES = (
    "192.168.1.239-192.168.1.254",
    "fd00:192:168:1::f000/120",
    "10.0.0.0/8",
    "::/0",
    "1.2.3.4",
    "2-1",
    "10.0.0.9-10.0.0.1",
)
DNS_PATH = "/api/v1/namespaces/kube-system/configmaps"
DNS_TEXTS = (
    default_config.text({"corp.example": ["192.0.2.53", "2001:db8::53"]}),
    "zones:\n  corp.example: [192.0.2.53]\nhosts:\n  192.0.2.7: [db.corp.example, db]\nrewrites:\n"
    "  - {name: old.example, to: web.default.svc.cluster.local}\n  - {suffix: gone.example, to: new.example}\n"
    "cache: {maxSeconds: 3600, bytes: 33554432, prefetch: true}\nlog: {pods: [default/web-1], names: [example.test]}\n"
    "upstreams: [machine, tls://192.0.2.1#dns.example]\norder: random\nttl: 5\npods: verified\n",
)
ODD_LINES = (
    "a: [[[[",
    "- ",
    "? ",
    "&a [*a,*a]",
    "<<: *a",
    "zones: {a.: [1.2.3.4]}",
    "hosts: {}",
    "\t",
    "ttl: 1:2:3",
    "!!python/x y",
    '"',
)


def policy(chance: random.Random) -> Object:
    """A ClusterNetworkPolicy."""
    rules = {
        direction: [
            {
                "action": chance.choice(("Accept", "Deny", "Pass")),
                side: chance.sample(PEERS, chance.randrange(1, 3)),
                "protocols": chance.sample(PROTOCOLS, chance.randrange(1, 3)),
            }
            for _ in range(chance.randrange(1, 4))
        ]
        for direction, side in (("ingress", "from"), ("egress", "to"))
    }
    subject = chance.choice(PEERS[:2])
    spec = {"tier": chance.choice(("Admin", "Baseline")), "priority": chance.randrange(1001), "subject": subject, **rules}
    metadata = {"name": chance.choice("abc")}
    made = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]  # a copy


def pool(chance: random.Random) -> Object:
    """A LoadBalancerPool."""
    spec = {"addresses": chance.sample(ADDRESSES, chance.randrange(1, 4)), "serviceSelector": LABELS}
    made = {"apiVersion": f"{pools.GROUP}/{pools.VERSION}", "kind": pools.KIND, "metadata": {"name": "p"}, "spec": spec}
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]  # a copy


def dns_config(chance: random.Random) -> Object:
    """The ConfigMap of the cluster's DNS, whose text is not always what it should be."""
    lines = chance.choice(DNS_TEXTS).splitlines()
    for _ in range(chance.choice((0, 1, 1, 3))):
        at = chance.randrange(len(lines))
        match chance.randrange(4):
            case 0:
                lines[at] = lines[at].lstrip("# ")
            case 1:
                lines.insert(at, chance.choice(ODD_LINES))
            case 2:
                lines[at : at + 1] = [lines[at]] * chance.choice((2, 500))
            case _:
                cut = chance.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:cut] + chance.choice(ODD_LINES) * chance.choice((1, 1, 300)) + lines[at][cut:]
    data = {config.KEY: "\n".join(lines)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config.NAME}, "data": data}


OWN: dict[str, Callable[[random.Random], Object]] = {
    "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies": policy,
    f"/apis/{pools.GROUP}/{pools.VERSION}/{pools.PLURAL}": pool,
    DNS_PATH: dns_config,
}
"""Collections, and what makes an object of each."""
MODELS: dict[str, Any] = {
    "nodes": Node,
    "services": Service,
    "endpointslices.discovery.k8s.io": EndpointSlice,
    LEASES: Lease,
    PODS: PodInfo,
    NAMESPACES: NamespaceInfo,
    POLICIES: NetworkPolicy,
    CLUSTER_POLICIES: ClusterNetworkPolicy,
}
"""What agents read, and as what."""


def read_as_agents_do(resource: str, stored: Stored) -> None:
    """Decode an object as agents and name servers do; raises what they would not expect."""
    if (model := MODELS.get(resource)) is not None:
        decode = getattr(model, "from_json", None) or msgspec.json.Decoder(model).decode
        found = decode(stored.raw)
        if resource in (POLICIES, CLUSTER_POLICIES):
            PolicyIndex().set_policy(found.metadata.path, found)
    elif resource == "configmaps" and stored.object["metadata"]["name"] == config.NAME:
        data, binary = stored.object.get("data") or {}, stored.object.get("binaryData") or {}
        try:
            config_text.of_data(data, binary.keys(), name_of("cluster.local"), ("10.96.0.10",))
        except ValueError:
            return  # an Event says it


# Protobuf: what `apiserver.protobuf` reads.


def protobuf_of(made: Object, row: Resource) -> bytes:
    """An object of a built-in kind as a typed client sends it. ValueError for what no such message can say."""
    shape = row.shape()
    assert shape is not None
    kind = _field(1, made["apiVersion"].encode()) + _field(2, made["kind"].encode())
    try:
        return protobuf.MAGIC + _field(1, kind) + _field(2, _message(made, shape))
    except (AttributeError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise ValueError("it is not of this shape") from error


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _message(made: Object, shape: Shape, struct_name: str = "") -> bytes:
    return b"".join(_parts(made, shape, struct_name))


def _parts(made: Object, shape: Shape, struct_name: str) -> Iterator[bytes]:
    definition = struct_name or shape.definition
    for number, field in wire.structs()[definition].items():
        if field.inlined:
            yield _field(number, _message(made, shape, wire.inlined(definition, field)))
        elif (value := made.get(field.name)) is not None and (inner := shape.fields.get(field.name)) is not None:
            if inner.kind == shapes.LIST and inner.items is not None:
                for one in value:
                    yield _field(number, _value(one, inner.items))
            elif inner.kind == shapes.MAP and inner.items is not None:
                for key, one in value.items():
                    yield _field(number, _field(1, key.encode()) + _field(2, _value(one, inner.items)))
            else:
                yield _field(number, _value(value, inner))


def _value(value: Any, shape: Shape) -> int | bytes:
    special = SPECIAL.get(shape.definition)
    if special is not None:
        return special(value)
    match shape.kind:
        case shapes.STRING:
            return base64.b64decode(value) if shape.format == "byte" else value.encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]
        case shapes.INTEGER | shapes.BOOLEAN:
            return int(value)
        case shapes.NUMBER:
            return struct.pack("<d", value)
        case shapes.LIST if shape.items is not None:
            return b"".join(_field(1, _value(one, shape.items)) for one in value)
        case _:
            return _message(value, shape)


def _time(text: str) -> bytes:
    return _field(1, int(datetime.datetime.fromisoformat(text).timestamp()))


def _json(value: Any) -> bytes:
    return _field(1, json.dumps(value).encode())


SPECIAL: dict[str, Callable[[Any], bytes]] = {
    META + "Time": _time,
    META + "MicroTime": _time,
    META + "FieldsV1": _json,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _json,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": lambda value: (
        _field(1, 0) + _field(2, value) if isinstance(value, int) else _field(1, 1) + _field(3, value.encode())
    ),
    "io.k8s.apimachinery.pkg.api.resource.Quantity": lambda value: _field(1, str(value).encode()),
    EXTENSIONS + "JSON": _json,
    EXTENSIONS + "JSONSchemaPropsOrBool": lambda value: _field(1, int(bool(value))),
    EXTENSIONS + "JSONSchemaPropsOrArray": lambda value: b"",
    EXTENSIONS + "JSONSchemaPropsOrStringArray": lambda value: b"",
}
