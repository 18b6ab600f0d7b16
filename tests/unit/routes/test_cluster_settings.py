"""What the ConfigMap may say, and what it may not."""

from __future__ import annotations

import re

import msgspec
import pytest

from podplane.routes.cluster_settings import KEYS, ClusterSettingsError, applied
from tests.plans import config

OWN = config((4,))


def test_what_is_left_out_is_as_the_node_says() -> None:
    assert applied({}, OWN) == OWN
    mine = msgspec.structs.replace(OWN, backend="vxlan", vxlan_port=8472)
    assert applied({"vxlan-vni": "7"}, mine) == msgspec.structs.replace(mine, vxlan_vni=7)


def test_each_key_sets_its_field() -> None:
    found = applied({"backend": " vxlan\n", "vxlan-vni": "16777215", "vxlan-port": "8472", "tunnel-offload": "disabled"}, OWN)
    assert (found.backend, found.vxlan_vni, found.vxlan_port, found.tunnel_offload) == ("vxlan", 16777215, 8472, "disabled")
    assert {field for field, _ in KEYS.values()} <= set(OWN.__struct_fields__)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"backend": "vxlam"}, "data.backend: there is no backend 'vxlam': choose one of host-gw, vxlan, gre, auto"),
        ({"backend": ""}, "data.backend: there is no backend ''"),
        (
            {"Backend": "vxlan"},
            "data.Backend is not known: there are backend, cross-subnet, mtu, vxlan-vni, vxlan-port, tunnel-offload",
        ),
        (
            {"backend": "host-gw+gre"},
            "data.backend: there is no backend 'host-gw+gre': choose one of host-gw, vxlan, gre, auto",
        ),
        ({"cross-subnet": "auto"}, "data.cross-subnet: there is no tunnel 'auto': choose one of vxlan, gre"),
        ({"backend": "vxlan", "cross-subnet": "gre"}, "data.cross-subnet: it is of host-gw, and the backend is vxlan"),
        ({"vxlan-vni": "0"}, "data.vxlan-vni: '0' is no whole number from 1 to 16777215"),
        ({"vxlan-vni": "16777216"}, "data.vxlan-vni"),
        ({"vxlan-vni": "²"}, "data.vxlan-vni"),
        ({"vxlan-port": "65536"}, "data.vxlan-port"),
        ({"tunnel-offload": "off"}, "data.tunnel-offload: there is no 'off': choose one of auto, enabled, disabled"),
        ({"vxlan-port": "-1"}, "data.vxlan-port"),
        ({"vxlan-port": "9" * 5000}, "data.vxlan-port"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(data: dict[str, str], why: str) -> None:
    with pytest.raises(ClusterSettingsError, match=re.escape(why)):
        applied(data, OWN)


def test_host_gw_has_the_tunnel_that_the_cluster_or_the_node_says() -> None:
    mine = msgspec.structs.replace(OWN, cross_subnet="vxlan")
    assert applied({"backend": "host-gw", "cross-subnet": "gre"}, OWN).backend == "host-gw+gre"
    assert applied({"cross-subnet": "gre"}, mine).backend == "host-gw+gre"
    assert applied({}, mine).backend == "host-gw+vxlan" and applied({"cross-subnet": ""}, mine).backend == "host-gw"
    assert [applied({"backend": name}, mine).backend for name in ("host-gw", "gre")] == ["host-gw", "gre"], "it says all of it"
