"""The work of a request grows as its body does, not as the square of that: a body may have 3 MiB, and one turn of the loop reads it.

The sizes are those at which comparing each with each takes minutes, so that such a test ends by the time-out of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from podplane.apiserver import decoding, selectors, strategic, strict
from podplane.apiserver.kinds import ephemeral, jobs, pods, services, statuses
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.problems import Cause

Object = dict[str, Any]
MANY = 100_000
SERVICES = next(row for row in RESOURCES if row.id == "services")


def twice(count: int) -> strict.Twice:
    return strict.in_json(("{" + ",".join(f'"k{i}":1,"k{i}":1' for i in range(count)) + "}").encode())


def test_fields_that_are_there_twice() -> None:
    found = twice(MANY)
    assert found.paths == [f"k{i}" for i in range(strict.MOST)]
    said = found.complaints([f"k{i}.x" for i in range(0, MANY, 2)] + [f"k{i}" for i in range(1, MANY, 2)], is_decoded=True)
    duplicates = [text for text in said if text.startswith("duplicate")]
    assert duplicates == [f'duplicate field "k{i}"' for i in range(0, strict.MOST, 2)], "what is not known is that only"


def test_fields_below_a_long_name() -> None:
    name = "n" * 10 * MANY
    fields = ",".join(f'"f{i}":1,"f{i}":1' for i in range(MANY // 5))
    found = strict.in_json(f'{{"{name}":{{{fields}}}}}'.encode())
    assert found.paths == [f"{name}.f{i}" for i in range(strict.MOST)]
    assert sum(map(len, found.places)) < 2 * strict.MOST * len(name), "the path of each would take 40 GB"
    said = found.complaints([name, "a"], is_decoded=True)
    assert said == [f'unknown field "{name}"', 'unknown field "a"']


def test_a_path_is_within_another_one_at_the_end_of_a_part() -> None:
    body = b'{"a": {"b": 1, "b": 2, "bc": [{"d": 1, "d": 1}]}, "ab": {"c": 1, "c": 1}}'
    found = strict.in_json(body)
    assert found.paths == ["a.b", "a.bc[0].d", "ab.c"]
    assert found.complaints(["a.b"], is_decoded=True) == [
        'unknown field "a.b"',
        'duplicate field "a.bc[0].d"',
        'duplicate field "ab.c"',
    ]
    assert found.complaints(["a.bc"], is_decoded=True)[:1] == ['duplicate field "a.b"']
    assert 'duplicate field "a.bc[0].d"' not in found.complaints(["a.bc"], is_decoded=True)
    assert found.complaints(["a"], is_decoded=True) == ['unknown field "a"', 'duplicate field "ab.c"']


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a[key].b", "a.key.b"),
        ("a[0].b[12][k8]", "a[0].b[12].k8"),
        ("a[].b", "a[].b"),
        ("a[x[y]", "a.x[y"),
        ("[" * MANY, "[" * MANY),
        ("]" * MANY, "]" * MANY),
    ],
)
def test_keys_of_maps_are_fields(path: str, said: str) -> None:
    assert strict.Twice().complaints([path], is_decoded=False) == [f'unknown field "{said}"']


def ports(numbers: range) -> list[Object]:
    return [{"port": number} for number in numbers]


@pytest.mark.parametrize("has_order", [True, False])
def test_a_strategic_merge(has_order: bool) -> None:
    old, change = ports(range(MANY)), ports(range(MANY // 2, 3 * MANY // 2))
    patch: Object = {"ports": change} | ({"$setElementOrder/ports": ports(range(3 * MANY // 2))} if has_order else {})
    new = strategic.merged({"spec": {"ports": old}}, {"spec": patch}, SERVICES.shape())
    assert sorted(one["port"] for one in new["spec"]["ports"]) == list(range(3 * MANY // 2))


def test_a_strategic_merge_that_deletes_and_retains() -> None:
    gone = [{"$patch": "delete", **port} for port in ports(range(MANY))]
    new = strategic.merged({"spec": {"ports": ports(range(MANY + 1))}}, {"spec": {"ports": gone}}, SERVICES.shape())
    assert new == {"spec": {"ports": [{"port": MANY}]}}
    labels = {f"k{i}": "" for i in range(MANY)}
    patch = {"metadata": {"labels": {**labels, "$retainKeys": [*labels]}}}
    assert strategic.merged({"metadata": {"labels": {"other": ""}}}, patch, SERVICES.shape()) == {
        "metadata": {"labels": labels}
    }


def test_a_label_selector() -> None:
    object_ = {"metadata": {"labels": {"a": "b"}}}
    assert selectors.labels(",".join(["a"] * MANY))(object_)
    values = ",".join(f"v{i}" for i in range(MANY))
    assert not selectors.labels(f"a in ({values})")(object_)
    assert selectors.labels(f"a notin ({values}),a,a in (b,c)")(object_)


def test_owner_references() -> None:
    owners = [{"uid": f"u{i}", "name": "a", "controller": False} for i in range(MANY)]
    metadata, options = {"ownerReferences": [*owners, owners[1], {**owners[2], "name": "b"}]}, decoding.Options()
    decoding._keep_owners_once(metadata, options)
    assert metadata["ownerReferences"] == [*owners, {**owners[2], "name": "b"}], "the first ones, in their order"
    assert [text.rpartition(": ")[2] for text in options.warnings] == ["u1, u2"]


def exit_codes() -> list[Cause]:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": list(range(MANY))}}
    return _of_policy({"rules": [rule]})


def patterns() -> list[Cause]:
    return _of_policy({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "?"}] * MANY}]})


def rules() -> list[Cause]:
    return _of_policy({"rules": [{"action": "?"}] * MANY})


def success_rules() -> list[Cause]:
    return list(jobs._check_success_policy([{"succeededIndexes": "?"}] * MANY, 5))


def _of_policy(policy: Object) -> list[Cause]:
    spec = {"podFailurePolicy": policy, "podReplacementPolicy": "Failed", "template": {"spec": {"restartPolicy": "Never"}}}
    return list(jobs._check_failure_policy(spec))


@pytest.mark.parametrize("asked", [exit_codes, patterns, rules, success_rules])
def test_of_too_many_no_more_is_said(asked: Callable[[], list[Cause]]) -> None:
    (cause,) = asked()
    assert cause.reason == "FieldValueTooMany"


def test_addresses_of_a_node() -> None:
    addresses = [{"type": "Hostname", "address": f"n{i}"} for i in range(MANY)]
    node = {"status": {"addresses": [*addresses, addresses[7]]}}
    assert [cause.field for cause in statuses.check_node(node, None)] == [f"status.addresses[{MANY}]"]


def test_addresses_of_pods_and_ingresses_that_stood_there() -> None:
    ips = [{"ip": f"bad{i}"} for i in range(MANY)]
    assert not [*statuses.check_pod({"spec": {}, "status": {"podIPs": ips}}, {"spec": {}, "status": {"podIPs": ips}})]
    points = [{"ip": f"bad{i}", "ports": [{"port": 1, "protocol": "TCP"}]} for i in range(MANY)]
    ingress = {"status": {"loadBalancer": {"ingress": points}}}
    assert not [*statuses.check_ingress(ingress, ingress)]


def test_conditions_of_one_type() -> None:
    conditions = [{"type": "x", "observedGeneration": i + 1} for i in range(MANY)]
    pod = {"status": {"conditions": [{"type": "x"} for _ in conditions]}}
    statuses.complete_pod(pod, {"status": {"conditions": conditions}})
    assert pod["status"]["conditions"] == conditions


def test_families_of_a_service() -> None:
    found = [*services._check_addresses({"ipFamilies": ["IPv4"] * MANY})]
    assert len(found) == MANY - 1


class Counted(list[Any]):
    """A list that counts how often it is walked."""

    walks = 0

    def __iter__(self) -> Any:
        self.walks += 1
        return super().__iter__()


def test_volumes_are_not_walked_once_a_container() -> None:
    volumes = Counted({"name": f"v{i}"} for i in range(3))
    containers = [{"name": f"c{i}", "image": "a", "volumeMounts": [{"name": "v2", "mountPath": "/v"}]} for i in range(50)]
    assert not [*pods.check_pod_spec({"containers": containers, "volumes": volumes}, "spec")]
    once = volumes.walks
    spec = {"containers": containers[:1], "ephemeralContainers": containers[1:], "volumes": volumes}
    assert not [*ephemeral.check_change({"spec": spec}, None)]
    assert (once < 5, volumes.walks - once) == (True, 1)
