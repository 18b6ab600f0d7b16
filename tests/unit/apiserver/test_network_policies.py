"""What a NetworkPolicy may say: what kube-apiserver refuses is refused, with the same words, and its defaults are filled in."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.kinds import network_policies
from podplane.apiserver.kinds.printing import selector_text
from tests.unit.apiserver.test_server import Api, Object

POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
NO_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def policy(**spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": spec}


def ports(*them: Object) -> Object:
    return policy(ingress=[{"ports": [*them]}])


def to(*peers: Object) -> Object:
    return policy(egress=[{}, {"to": [*peers]}])


def block(cidr: str, *excepts: str) -> Object:
    return to({"ipBlock": {"cidr": cidr, "except": [*excepts]}})


def expression(**term: Any) -> Object:
    return policy(podSelector={"matchExpressions": [{"key": "a", **term}]})


TO, PORTS = "spec.egress[1].to[0]", "spec.ingress[0].ports[0]"
TERM = "spec.podSelector.matchExpressions[0]"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (ports({"protocol": "ICMP"}), f'{PORTS}.protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"'),
        (ports({"port": 0}), f"{PORTS}.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        (ports({"port": 65536}), f"{PORTS}.port: Invalid value: 65536: must be between 1 and 65535, inclusive"),
        (ports({"port": "HTTP"}), f'{PORTS}.port: Invalid value: "HTTP": '),
        (ports({"port": "80"}), f'{PORTS}.port: Invalid value: "80": '),
        (
            ports({"port": "http", "endPort": 9}),
            f"{PORTS}.endPort: Invalid value: 9: may not be specified when `port` is non-numeric",
        ),
        (ports({"endPort": 9}), f"{PORTS}.endPort: Invalid value: 9: may not be specified when `port` is not specified"),
        (ports({"port": 9, "endPort": 8}), f"{PORTS}.endPort: Invalid value: 8: must be greater than or equal to `port`"),
        (
            ports({"port": 9, "endPort": 70000}),
            f"{PORTS}.endPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (to({}), f"{TO}: Required value: must specify a peer"),
        (
            to({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
            f"{TO}: Forbidden: may not specify both ipBlock and another peer",
        ),
        (block(""), f"{TO}.ipBlock.cidr: Required value"),
        (block("10.0.0.1"), f'{TO}.ipBlock.cidr: Invalid value: "10.0.0.1": {NO_CIDR}'),
        (block("10.0.0.0/255.0.0.0"), f'{TO}.ipBlock.cidr: Invalid value: "10.0.0.0/255.0.0.0": {NO_CIDR}'),
        (block("fe80::%eth0/64"), f'{TO}.ipBlock.cidr: Invalid value: "fe80::%eth0/64": {NO_CIDR}'),
        (
            block("10.0.0.1/8"),
            f'{TO}.ipBlock.cidr: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length',
        ),
        (
            block("010.0.0.0/8"),
            f'{TO}.ipBlock.cidr: Invalid value: "010.0.0.0/8": must not have leading 0s in IP or prefix length',
        ),
        (
            block("10.0.0.0/08"),
            f'{TO}.ipBlock.cidr: Invalid value: "10.0.0.0/08": must not have leading 0s in IP or prefix length',
        ),
        (
            block("::ffff:10.0.0.0/104"),
            f'{TO}.ipBlock.cidr: Invalid value: "::ffff:10.0.0.0/104": must not have an IPv4-mapped IPv6 address',
        ),
        (block("10.0.0.0/8", "x"), f'{TO}.ipBlock.except[0]: Invalid value: "x": {NO_CIDR}'),
        (
            block("10.0.0.0/8", "10.0.0.0/8"),
            f'{TO}.ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
        ),
        (
            block("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/16"),
            f'{TO}.ipBlock.except[1]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
        ),
        (block("10.0.0.0/8", "::/64"), f'{TO}.ipBlock.except[0]: Invalid value: "::/64": must be a strict subset of `cidr`'),
        (expression(operator="In"), f"{TERM}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        (
            expression(operator="Exists", values=["x"]),
            f"{TERM}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        (expression(operator="Gt", values=["1"]), f'{TERM}.operator: Invalid value: "Gt": not a valid selector operator'),
        (expression(operator="In", values=["x", "a b"]), f'{TERM}.values[1]: Invalid value: "a b": '),
        (to({"podSelector": {"matchLabels": {"a b": "c"}}}), f'{TO}.podSelector.matchLabels: Invalid value: "a b": '),
        (
            to({"namespaceSelector": {"matchLabels": {"a": "b c"}}}),
            f'{TO}.namespaceSelector.matchLabels: Invalid value: "b c": ',
        ),
        (
            policy(policyTypes=["Egress", "Both"]),
            'spec.policyTypes[1]: Unsupported value: "Both": supported values: "Ingress", "Egress"',
        ),
        (policy(policyTypes=["Ingress", "Egress", "Ingress"]), "may not specify more than two policyTypes"),
    ],
)
async def test_what_is_refused(body: Object, said: str) -> None:
    refusal = await Api().refused("Invalid", "POST", POLICIES, body)
    assert refusal.startswith('NetworkPolicy.networking.k8s.io "p" is invalid: ')
    assert said in refusal


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ["Ingress"]),
        ({"egress": []}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"policyTypes": ["Egress"]}, ["Egress"]),
        ({"policyTypes": ["Egress", "Egress"]}, ["Egress", "Egress"]),
    ],
)
async def test_defaults(spec: Object, types: list[str]) -> None:
    stored = await Api()("POST", POLICIES, policy(ingress=[{"ports": [{"port": 80}, {"protocol": "UDP"}]}], **spec))
    assert stored["spec"]["podSelector"] == {}
    assert stored["spec"]["policyTypes"] == types
    assert stored["spec"]["ingress"][0]["ports"] == [{"port": 80, "protocol": "TCP"}, {"protocol": "UDP"}]
    assert stored["metadata"]["generation"] == 1


async def test_what_everybody_takes_is_taken() -> None:
    api = Api()
    for number, cidr in enumerate(("0.0.0.0/0", "10.0.0.1/32", "::/0", "2001:DB8:0::/48", "2001:0db8::/32")):
        body = block(cidr) | {"metadata": {"name": f"p{number}"}}
        assert (await api("POST", POLICIES, body))["spec"]["egress"][1]["to"][0]["ipBlock"]["cidr"] == cidr


async def test_a_range_may_have_one_port_only() -> None:
    stored = await Api()("POST", POLICIES, ports({"port": 80, "endPort": 80}, {"port": 1, "endPort": 65535}))
    assert [one["endPort"] for one in stored["spec"]["ingress"][0]["ports"]] == [80, 65535]


async def test_a_status_is_no_field_of_it() -> None:
    stored = await Api()("POST", POLICIES, policy() | {"status": {"conditions": []}})
    assert "status" not in stored


async def test_a_change_of_the_rules_is_another_generation() -> None:
    api = Api()
    await api("POST", POLICIES, policy())
    changed = await api("PATCH", f"{POLICIES}/p", {"spec": {"ingress": [{}]}})
    assert changed["metadata"]["generation"] == 2
    relabelled = await api("PATCH", f"{POLICIES}/p", {"metadata": {"labels": {"a": "b"}}})
    assert relabelled["metadata"]["generation"] == 2


def test_what_was_stored_before_may_stay_though_it_would_be_refused_today() -> None:
    def found(body: Object, old: Object | None) -> list[str]:
        network_policies.complete(body)
        return [cause.field for cause in network_policies.check(body, old)]

    bits, odd = block("10.0.0.1/8", "10.1.0.1/16"), expression(operator="In", values=["a b"])
    assert found(bits, None) == [f"{TO}.ipBlock.cidr", f"{TO}.ipBlock.except[0]"]
    assert found(block("10.0.0.1/8", "10.1.0.1/16"), bits) == []
    assert found(block("10.0.0.1/8", "10.2.0.1/16"), bits) == [f"{TO}.ipBlock.except[0]"]
    assert found(odd, None) == [f"{TERM}.values[0]"]
    assert found(expression(operator="In", values=["c d"]), odd) == []


@pytest.mark.parametrize(
    ("cidr", "said"),
    [
        ("10.0.0.0/8", ()),
        ("2001:db8::/32", ()),
        ("0::/0", ('IPv6 CIDR value "0::/0" should be in RFC 5952 canonical format ("::/0")',)),
        ("2001:DB8::/32", ('IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format ("2001:db8::/32")',)),
        ("10.0.0.1/8", ('CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)',)),
        ("10.0.0.0/08", ('non-standard CIDR value "10.0.0.0/08" is invalid: use "10.0.0.0/8"',)),
        ("00.0.0.0/0", ('non-standard CIDR value "00.0.0.0/0" is invalid: use "0.0.0.0/0"',)),
        ("2001:db8::/032", ('non-standard CIDR value "2001:db8::/032" is invalid: use "2001:db8::/32"',)),
        (
            "010.0.0.1/8",
            (
                'CIDR value "010.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)',
                'non-standard CIDR value "010.0.0.1/8" is invalid: use "10.0.0.0/8"',
            ),
        ),
        (
            "::ffff:10.0.0.1/104",
            (
                'CIDR value "::ffff:10.0.0.1/104" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/128"?)',
                'non-standard CIDR value "::ffff:10.0.0.1/104" is invalid: use "10.0.0.0/8"',
            ),
        ),
    ],
)
def test_of_networks_that_are_written_oddly_the_api_says_what_kubernetes_says(cidr: str, said: tuple[str, ...]) -> None:
    """As apimachinery 0.36.3 does; but for the form of IPv6, new policies with these are refused, and only old ones may keep them."""
    assert [*network_policies.warnings(block(cidr))] == [f"{TO}.ipBlock.cidr: {text}" for text in said]
    inner = [*network_policies.warnings(block("::/0", cidr))]
    assert inner == [f"{TO}.ipBlock.except[0]: {text}" for text in said]
    assert [*network_policies.warnings(policy(ingress=[{"from": [{"podSelector": {}}]}, {}]))] == []


async def test_a_policy_is_stored_with_a_warning_and_as_it_is_written() -> None:
    api = Api()
    for method, path in (("POST", POLICIES), ("PUT", f"{POLICIES}/p")):
        answer = await api.answer(method, path, block("2001:DB8::/32"))
        (found,) = (value for name, value in answer.headers if name == "warning" and "RFC 5952" in value)
        assert found.startswith(f'299 - "{TO}.ipBlock.cidr: IPv6 CIDR value ')
    assert (await api("GET", f"{POLICIES}/p"))["spec"]["egress"][1]["to"][0]["ipBlock"]["cidr"] == "2001:DB8::/32"
    answer = await api.answer("DELETE", f"{POLICIES}/p")
    assert not [value for name, value in answer.headers if name == "warning"]


def test_its_column_is_the_selector_in_the_order_of_keys() -> None:
    terms = [
        {"key": "tier", "operator": "NotIn", "values": ["z", "a"]},
        {"key": "app", "operator": "Exists"},
        {"key": "b", "operator": "DoesNotExist"},
        {"key": "a", "operator": "In", "values": ["x"]},
    ]
    selector = {"matchLabels": {"z": "1", "c": "2"}, "matchExpressions": terms}
    assert selector_text(selector) == "a in (x),app,!b,c=2,tier notin (a,z),z=1"
    assert selector_text({}) == "<none>"
