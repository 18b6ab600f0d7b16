"""Settings of an agent: decoded from a mapping, with errors that name the key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.agent.features import FEATURES
from podplane.agent.settings import Settings, SettingsError, decode

NETWORK = {"cluster_cidrs": ["10.244.0.0/16"]}


def test_every_part_is_decoded() -> None:
    content: dict[str, Any] = {
        "network": {**NETWORK, "mtu": 1400},
        "nodes": {"masquerade": False, "masquerade_exclude": ["10.0.0.0/8"]},
        "services": {"node_port_addresses": ["192.168.0.0/16"]},
        "hostports": {"enabled": False},
        "policies": {"takes_back": False},
    }
    found = decode(content)
    assert msgspec.to_builtins(found) == msgspec.to_builtins(decode(content))
    assert (found.network.mtu, found.network.cluster_cidrs) == (1400, ("10.244.0.0/16",))
    assert (found.nodes.masquerade, found.nodes.masquerade_exclude) == (False, ("10.0.0.0/8",))
    assert found.services.node_port_addresses == ("192.168.0.0/16",)
    assert not found.hostports.enabled and not found.policies.takes_back


def test_what_is_not_said_has_a_default() -> None:
    found = decode({"network": NETWORK})
    assert (
        found.hostports.enabled
        and found.policies.takes_back
        and found.nodes.masquerade
        and not found.services.node_port_addresses
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"network": NETWORK, "hostport": {}}, "settings: Object contains unknown field `hostport`"),
        (
            {"network": NETWORK, "hostports": {"enabld": True}},
            "settings of hostports: Object contains unknown field `enabld`",
        ),
        ({"network": {**NETWORK, "masquerade": True}}, "settings of network: Object contains unknown field `masquerade`"),
        ({"network": {}}, "settings of network: Object missing required field `cluster_cidrs`"),
        ({}, "settings: Object missing required field `network`"),
        ({"network": NETWORK, "hostports": {"enabled": "no"}}, "settings of hostports.enabled: Expected `bool`, got `str`"),
        (
            {"network": NETWORK, "nodes": {"masquerade_exclude": ["ten"]}},
            "settings of nodes: 'ten' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            {"network": NETWORK, "services": {"node_port_addresses": ["10.0.0.1/8"]}},
            "settings of services: 10.0.0.1/8 has host bits set",
        ),
    ],
)
def test_a_mistake_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        decode(content)
    assert str(raised.value) == message


def test_settings_and_their_parts_are_frozen_and_each_part_reaches_a_feature() -> None:
    settings = decode({"network": NETWORK})
    parts = {name: getattr(settings, name) for name in Settings.__struct_fields__}
    assert all(hash(part) is not None for part in (settings, *parts.values()))
    given: list[object] = []
    for feature in FEATURES:
        own = feature.settings(settings)
        given += own if isinstance(own, tuple) else [own]
    assert all(any(part is one for one in given) for part in parts.values())
