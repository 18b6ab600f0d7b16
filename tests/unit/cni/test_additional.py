"""What a pod asks for by annotation, what a NetworkAttachmentDefinition says, and what the status says: as the specification has it."""

from __future__ import annotations

import json

import pytest

from podplane.cni.additional import Chain, Interface, Selection, network, network_status, selections
from podplane.cni.network import Attached
from podplane.model.pod_info import PodInfo
from podplane.model.view import BridgeNetwork

MAC = "02:00:00:00:00:77"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("blue", [Selection("shop", "blue", "net1")]),
        (
            " blue , ops/green@data0,red ",
            [Selection("shop", "blue", "net1"), Selection("ops", "green", "data0"), Selection("shop", "red", "net3")],
        ),
        ("blue,blue", [Selection("shop", "blue", "net1"), Selection("shop", "blue", "net2")]),
        ('[{"name": "blue"}]', [Selection("shop", "blue", "net1")]),
        (
            json.dumps(
                [{"name": "b", "namespace": "ops", "interface": "x", "ips": ["10.1.0.2/24", "fd00::5"], "mac": MAC.upper()}]
            ),
            [Selection("ops", "b", "x", ("10.1.0.2", "fd00::5"), MAC)],
        ),
        ("[]", []),
    ],
)
def test_both_forms_of_the_annotation_are_read(text: str, found: list[Selection]) -> None:
    assert selections(text, "shop") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blue,", "'' is no name of a network"),
        ("Blue", "'Blue' is no name of a network"),
        ("/blue", "'/blue' is no network: name, namespace/name"),
        ("a/b/c", "'a/b' is no namespace of a network"),
        ("blue@", "'blue@' is no network"),
        ("blue@eth0", "'eth0' is no name of a further interface: it is the pod's own"),
        ("blue@lo", "'lo' is no name of a further interface"),
        ("blue@a-name-of-16-chs", "is no name of a further interface: it is longer than 15 bytes"),
        ("blue@ääääääää", "is no name of a further interface"),
        ("blue@net%d", "is no name of a further interface"),
        ("[" * 100_000, "networks: "),
        ('[{"name": "blue", "x": ' + "[" * 5000 + "]" * 5000 + "}]", "networks: "),
        ("blue@x,green@x", "interface x is asked for twice"),
        ("green@net2,blue", "interface net2 is asked for twice"),
        (",".join(["blue"] * 17), "17 networks are asked for, and a pod has at most 16"),
        ('[{"name": "blue", "default-route": ["10.1.0.1"]}]', "default-route"),
        ('[{"namespace": "blue"}]', "name"),
        ('{"name": "blue"}', "array"),
        ('[{"name": "blue", "ips": ["10.1.0.300"]}]', "10.1.0.300"),
        ('[{"name": "blue", "mac": "x"}]', "MAC 'x' is not of six bytes"),
        ("[", "truncated"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_refused_and_the_error_says_what(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"annotation k8s\.v1\.cni\.cncf\.io/networks: ") as caught:
        selections(text, "shop")
    assert words in str(caught.value)


def config(**fields: object) -> str:
    return json.dumps({"cniVersion": "1.0.0", "type": "podplane", "subnets": ["10.20.0.0/24"], **fields})


def test_a_definition_says_subnets_and_mtu() -> None:
    assert network("a/b", config()) == BridgeNetwork("a/b", ("10.20.0.0/24",))
    both = config(subnets=["10.20.0.0/24", "fd00:20::/64"], mtu=9000, name="x")
    assert network("a/b", both) == BridgeNetwork("a/b", ("10.20.0.0/24", "fd00:20::/64"), 9000)
    chain = json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [json.loads(config())]})
    assert network("a/b", chain) == BridgeNetwork("a/b", ("10.20.0.0/24",))
    assert network("a/b", '{"type": "macvlan"}') == Chain("a/b", "1.0.0", "a-b", ({"type": "macvlan"},))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no spec.config"),
        ("{", "spec.config is no JSON object"),
        ("[]", "spec.config is no JSON object"),
        ('{"x": ' + "[" * 5000 + "]" * 5000 + "}", "spec.config is no JSON object"),
        ('{"type": "podplane-cni"}', "podplane-cni makes the pods' own network"),
        ('{"plugins": [{"type": "bridge"}, {"type": "podplane-cni"}]}', "podplane-cni makes the pods' own network"),
        ('{"type": "../../bin/sh"}', "'../../bin/sh' is no type of a plugin"),
        ('{"type": "/bin/sh"}', "'/bin/sh' is no type of a plugin"),
        ('{"plugins": [{}, {}]}', "None is no type of a plugin"),
        ('{"plugins": []}', "plugins is no list of configurations"),
        ('{"plugins": 7}', "plugins is no list of configurations"),
        ('{"plugins": [{"type": "podplane"}, {"type": "tuning"}]}', "type podplane has no plugins before it or after it"),
        ('{"type": "macvlan", "capabilities": 7}', "capabilities is no mapping"),
        (config(bridge="br0"), "bridge"),
        (config(mtu=100), "mtu 100 is not within 576 and 65535"),
        (config(mtu="1500"), "mtu"),
        (config(cniVersion="9.0.0"), "cniVersion '9.0.0' is none of 0.3.0, "),
        (config(cniVersion=[]), "cniVersion [] is none of"),
        (config(subnets=[]), "spec.config: subnets: write one CIDR, or one of IPv4 and one of IPv6"),
        (
            config(subnets=["10.1.0.0/24", "10.2.0.0/24"]),
            "spec.config: subnets: write one CIDR, or one of IPv4 and one of IPv6",
        ),
        (config(subnets=["10.1.0.1/24"]), "spec.config: subnets: 10.1.0.1/24 has host bits set"),
        (config(subnets=["10.1.0.0/30"]), "10.1.0.0/30 can't be one: write a private network with room for 8 addresses"),
        (config(subnets=["8.8.8.0/24"]), "8.8.8.0/24 can't be one: write a private network"),
        (config(subnets=["127.0.0.0/8"]), "127.0.0.0/8 can't be one"),
    ],
)
def test_a_definition_that_can_not_be_had_is_refused_and_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^NetworkAttachmentDefinition a/b: ") as caught:
        network("a/b", text)
    assert words in str(caught.value)


def test_the_status_lists_the_pods_own_interface_first() -> None:
    own = Attached(("10.244.1.2",), "eth0", "0a:58:0a:f4:01:02", mtu=1500)
    further = Attached(("10.20.0.2", "fd00:20::2"), "net1", MAC, mtu=1400)
    assert json.loads(network_status(own, [Interface("a/blue", further)])) == [
        {
            "name": "podplane",
            "interface": "eth0",
            "ips": ["10.244.1.2"],
            "mac": own.mac,
            "mtu": 1500,
            "default": True,
            "dns": {},
        },
        {"name": "a/blue", "interface": "net1", "ips": list(further.ips), "mac": MAC, "mtu": 1400, "dns": {}},
    ]


def test_an_mtu_that_no_plugin_named_is_not_in_the_status() -> None:
    own = Attached(("10.244.1.2",), "eth0", "0a:58:0a:f4:01:02", mtu=1500)
    found = json.loads(network_status(own, [Interface("a/blue", Attached((), "net1", MAC))]))
    assert found[1] == {"name": "a/blue", "interface": "net1", "ips": [], "mac": MAC, "dns": {}}


def test_the_annotation_is_known_of_every_pod() -> None:
    pod = {"metadata": {"name": "a", "annotations": {"k8s.v1.cni.cncf.io/networks": "blue", "other": "x"}}}
    assert PodInfo.from_json(json.dumps(pod).encode()).networks == "blue"
    assert PodInfo.from_json(b'{"metadata": {"annotations": {"other": "x"}}}').networks == ""
    assert PodInfo.from_json(b'{"metadata": {"annotations": null}}').networks == ""
