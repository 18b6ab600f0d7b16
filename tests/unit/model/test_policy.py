"""NetworkPolicy as planners read it: defaults, canonical selectors, and what is none."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.controllers.objects import matches
from podplane.model.policy import (
    EVERYTHING,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    PodSelector,
    PolicyPort,
    PolicyRule,
    Requirement,
    network,
)

KEYS, VALUES = st.sampled_from(["app", "tier", "a/b"]), st.sampled_from(["", "web", "db"])
EXPRESSIONS = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        KEYS,
        st.sampled_from(["In", "NotIn"]),
        st.lists(VALUES, min_size=1, max_size=3),
    ),
    st.builds(lambda key, operator: {"key": key, "operator": operator}, KEYS, st.sampled_from(["Exists", "DoesNotExist"])),
)
SELECTORS = st.fixed_dictionaries(
    {}, optional={"matchLabels": st.dictionaries(KEYS, VALUES), "matchExpressions": st.lists(EXPRESSIONS, max_size=3)}
)


def decode(**spec: Any) -> NetworkPolicy:
    body = {"metadata": {"name": "db", "namespace": "shop", "uid": "u", "labels": {"x": "y"}}, "spec": spec}
    return NetworkPolicy.from_json(json.dumps(body).encode())


def selector(text: dict[str, Any]) -> LabelSelector:
    return decode(podSelector=text).pods


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, (), None),
        ({"podSelector": {}, "policyTypes": []}, (), None),
        ({"ingress": [{}]}, (PolicyRule(),), None),
        ({"egress": [{}]}, (), (PolicyRule(),)),
        ({"egress": []}, (), None),
        ({"policyTypes": ["Egress"]}, None, ()),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, None, ()),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, (), None),
        ({"policyTypes": ["Ingress", "Egress"]}, (), ()),
        ({"ingress": None, "egress": None, "policyTypes": None, "podSelector": None}, (), None),
    ],
)
def test_directions_are_those_of_policy_types_or_of_what_there_are_rules_for(
    spec: dict[str, Any], ingress: object, egress: object
) -> None:
    policy = decode(**spec)
    assert (policy.rules("ingress"), policy.rules("egress")) == (ingress, egress)
    assert policy.subjects == PodSelector("shop", EVERYTHING)
    assert policy.metadata.path == "shop/db"


def test_peers_and_ports() -> None:
    one = {
        "from": [
            {"podSelector": {}},
            {"namespaceSelector": {}},
            {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "web"}}},
            {"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.2.0.0/16", "10.1.0.0/16", "10.2.0.0/16"]}},
        ],
        "ports": [{}, {"protocol": "UDP", "port": 53}, {"port": "http"}, {"protocol": "SCTP", "port": 1, "endPort": 9}],
    }
    (rule,) = decode(ingress=[one]).ingress or ()
    web, team = LabelSelector((Requirement("app", "In", ("web",)),)), LabelSelector((Requirement("team", "In", ("a",)),))
    assert rule.peers == (
        PodSelector("shop"),
        PodSelector(EVERYTHING),
        PodSelector(team, web),
        IPBlock("10.0.0.0/8", ("10.1.0.0/16", "10.2.0.0/16")),
    )
    assert rule.ports == (
        PolicyPort("TCP"),
        PolicyPort("UDP", (53, 53)),
        PolicyPort("TCP", "http"),
        PolicyPort("SCTP", (1, 9)),
    )


def test_empty_lists_of_peers_and_ports_are_all_of_them() -> None:
    assert decode(egress=[{"to": [], "ports": []}, {"to": None, "ports": None}]).egress == (PolicyRule(), PolicyRule())


@given(SELECTORS, st.dictionaries(KEYS, VALUES))
def test_a_selector_selects_what_its_text_says(text: dict[str, Any], labels: dict[str, str]) -> None:
    assert selector(text).matches(labels) is matches(text, labels)


@given(SELECTORS, st.randoms())
def test_order_repetition_and_match_labels_make_no_other_selector(text: dict[str, Any], random: Any) -> None:
    terms = [*text.get("matchExpressions", ())]
    terms += [{"key": key, "operator": "In", "values": [value, value]} for key, value in text.get("matchLabels", {}).items()]
    terms += terms[:1]
    random.shuffle(terms)
    other = selector({"matchExpressions": [term | {"values": [*reversed(term.get("values", []))]} for term in terms]})
    assert other == selector(text)
    assert hash(other) == hash(selector(text))


def test_equal_peers_are_in_memory_once() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}
    (one,), (two,) = decode(ingress=[rule]).ingress or (), decode(ingress=[rule]).ingress or ()
    assert one.peers and two.peers and one.ports and two.ports
    assert one.peers[0] is two.peers[0]
    assert one.ports[0] is two.ports[0]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.001.0.00/16", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0::1/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_in_canonical_form(text: str, canonical: str) -> None:
    assert network(text) == canonical


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_a_network_is_what_ipaddress_makes_of_it(number: int, length: int) -> None:
    text = f"{ipaddress.IPv4Address(number)}/{length}"
    assert network(text) == str(ipaddress.ip_network(text, strict=False))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "256.0.0.0/8",
        "1.2.3/8",
        "1.2.3.4.5/8",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "1.-2.3.4/8",
        "::/129",
        "::1",
        "10.0.0.0/٣",
        "10.0.0.1",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "fe80::%eth0/10",
        "web/8",
        "10.0.0.0/-1",
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        network(text)
    assert decode(ingress=[{"from": [{"ipBlock": {"cidr": text}}]}]).ingress == (PolicyRule(()),)


@pytest.mark.parametrize(
    "spec", [{"ingress": [{"ports": [{"port": 1.5}]}]}, {"egress": {}}, {"podSelector": {"matchLabels": []}}]
)
def test_what_is_no_policy_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(**spec)


@pytest.mark.parametrize(
    ("spec", "rule", "said"),
    [
        (
            {"from": [{"somethingNew": {}}]},
            PolicyRule(()),
            "a peer without podSelector, namespaceSelector and ipBlock is not known",
        ),
        ({"from": [{}, {"podSelector": {}}]}, PolicyRule((PodSelector("shop"),)), "a peer without"),
        ({"from": [{"ipBlock": {"cidr": "x"}}]}, PolicyRule(()), "'x' is no CIDR"),
        (
            {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}]},
            PolicyRule(()),
            "the operator 'Gt'",
        ),
        ({"ports": [{"protocol": "QUIC"}]}, PolicyRule(None, ()), "the protocol 'QUIC' is not known"),
        (
            {"ports": [{"protocol": "QUIC"}, {"port": 80}]},
            PolicyRule(None, (PolicyPort("TCP", (80, 80)),)),
            "the protocol 'QUIC'",
        ),
    ],
)
def test_what_a_later_version_may_know_allows_nothing(spec: dict[str, Any], rule: PolicyRule, said: str) -> None:
    policy = decode(ingress=[{}, spec])
    assert policy.ingress == (PolicyRule(), rule)
    (sentence,) = policy.unread
    assert sentence.startswith(f"ingress rule 2: {said}")


def test_a_selector_that_a_later_version_may_know_selects_all_pods() -> None:
    policy = decode(
        podSelector={"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}, policyTypes=["Ingress", "Both"]
    )
    assert (policy.pods, policy.ingress, policy.egress) == (EVERYTHING, (), None)
    assert policy.unread == ("policyTypes: 'Both' is not known", "podSelector: the operator 'Gt' is not known")
