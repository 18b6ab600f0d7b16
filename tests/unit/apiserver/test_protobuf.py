"""Bodies in protobuf: what kubectl's typed clients send is read, and bytes that are none are refused whatever they are."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import protobuf
from podplane.apiserver.protobuf import MAGIC, TYPE, ProtobufError, decode
from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import Api


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(version: str, kind: str, *fields: bytes) -> bytes:
    return MAGIC + field(1, field(1, version) + field(2, kind)) + field(2, b"".join(fields))


def test_a_config_map() -> None:
    entry = field(1, "colour") + field(2, "blue")
    binary = field(1, "raw") + field(2, b"\x00\xff")
    seconds = field(8, field(1, 1_767_225_600))  # creationTimestamp
    label = field(11, field(1, "a") + field(2, "b"))
    metadata = field(1, field(1, "x") + field(3, "default") + seconds + label)
    found = decode(body("v1", "ConfigMap", metadata, field(2, entry), field(3, binary), field(4, 0)))
    assert found == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": "default", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "data": {"colour": "blue"},
        "binaryData": {"raw": "AP8="},
        "immutable": False,
    }


def test_a_service_with_numbers_and_names_as_target_ports() -> None:
    def port(name: str, number: int, target: bytes) -> bytes:
        return field(1, field(1, name) + field(2, "TCP") + field(3, number) + field(4, target) + field(5, 0))

    ports = port("a", 80, field(1, 0) + field(2, 8080)) + port("b", 81, field(1, 1) + field(3, "http"))
    selector = field(2, field(1, "app") + field(2, "web"))
    found = decode(body("v1", "Service", field(2, ports + selector + field(4, "ClusterIP"))))
    assert found["spec"] == {
        "type": "ClusterIP",
        "selector": {"app": "web"},
        "ports": [
            {"name": "a", "protocol": "TCP", "port": 80, "targetPort": 8080},
            {"name": "b", "protocol": "TCP", "port": 81, "targetPort": "http"},
        ],
    }


def test_a_number_below_zero_and_one_that_is_said_to_be_zero() -> None:
    found = decode(body("apps/v1", "Deployment", field(2, field(1, 0))))
    assert found["spec"]["replicas"] == 0, "a pointer to zero is said"
    assert decode(body("apps/v1", "Deployment", field(2, field(1, -1))))["spec"]["replicas"] == -1


def test_what_is_not_known_is_passed_over() -> None:
    unknown = field(999, 5) + varint(998 << 3 | 1) + struct.pack("<d", 1.5) + varint(997 << 3 | 5) + b"1234"
    assert decode(body("v1", "ConfigMap", unknown)) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}


def test_an_empty_message_is_said() -> None:
    version = field(1, "v1") + field(2, 1) + field(5, field(1, b""))
    found = decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version))))
    made = found["spec"]["versions"][0]
    assert (made["name"], made["served"], made["storage"], made["subresources"]) == ("v1", True, False, {"status": {}})


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "time", "micro_time"),
    [
        (1_767_225_600, 0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z"),
        (1_767_225_600, 5_999, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000005Z"),
        (-62_135_596_799, 0, "0001-01-01T00:00:01Z", "0001-01-01T00:00:01.000000Z"),
        (-62_135_596_800, 0, None, None),
        (253_402_300_799, 0, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
        (-1, 500_000_000, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.500000Z"),
    ],
)
def test_times_are_as_go_writes_them(seconds: int, nanoseconds: int, time: str | None, micro_time: str | None) -> None:
    moment = field(1, seconds) + field(2, nanoseconds)
    found = decode(body("coordination.k8s.io/v1", "Lease", field(1, field(8, moment)), field(2, field(4, moment))))
    assert (found["metadata"].get("creationTimestamp"), found["spec"].get("renewTime")) == (time, micro_time)


def test_a_time_that_no_year_of_four_digits_has_is_refused() -> None:
    with pytest.raises(ProtobufError, match="out of range"):
        decode(body("v1", "ConfigMap", field(1, field(8, field(1, 253_402_300_800)))))


def test_numbers_may_be_packed_and_zeros_of_maps_left_out() -> None:
    groups = varint(1) + varint(2) + varint(-3)
    found = decode(body("v1", "Pod", field(2, field(14, field(4, groups) + field(4, 7)))))
    assert found["spec"]["securityContext"]["supplementalGroups"] == [1, 2, -3, 7]
    assert decode(body("v1", "ConfigMap", field(2, field(1, "a"))))["data"] == {"a": ""}


async def test_it_is_stored_like_any_other() -> None:
    api = Api()
    data = body("v1", "Namespace", field(1, field(1, "team")))
    answer = await api.server.handle(
        Request("POST", "/api/v1/namespaces", {}, {"authorization": "Bearer secret", "content-type": TYPE}, data)
    )
    assert isinstance(answer, Response)
    assert (answer.status, answer.content_type) == (201, "application/json")
    assert "team" in await api.names("/api/v1/namespaces")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"k8s",
        MAGIC,
        MAGIC + b"\xff" * 20,
        body("v1", "Unicorn"),
        body("v1", "ConfigMap", field(1, 5)),
        body("v1", "ConfigMap", field(2, field(1, b"\xff"))),
        body("v1", "ConfigMap", field(1, "x"))[:-1],
        body("v1", "ConfigMap", varint(1 << 3 | 3)),
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ProtobufError):
        decode(data)


KINDS = st.sampled_from(sorted(protobuf._kinds()))
noise = st.recursive(
    st.binary(max_size=8),
    lambda inner: st.lists(st.tuples(st.integers(1, 40), inner | st.integers(0, 2**64 - 1)), max_size=4).map(
        lambda fields: b"".join(field(n, v) for n, v in fields)
    ),
    max_leaves=10,
)


@given(KINDS, noise)
def test_noise_is_read_or_refused_and_nothing_else(kind: tuple[str, str], data: bytes) -> None:
    try:
        found: dict[str, Any] = decode(body(*kind, data))
    except ProtobufError:
        return
    assert (found["apiVersion"], found["kind"]) == kind
