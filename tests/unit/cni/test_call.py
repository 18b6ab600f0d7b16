"""Calls of runtimes: what is read of them, and what is wrong with others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.cni import call as calls
from podplane.cni.arguments import Arguments, PortMapping
from podplane.cni.call import Call, parse, version_of
from podplane.cni.errors import CniError, Code, render
from podplane.cni.result import VERSIONS, Dns
from podplane.model.view import Bandwidth, HostPort
from tests.unit.cni.fakes import configuration

MADE = {"interfaces": [{"name": "eth0", "sandbox": "/run/netns/a"}]}
ENV = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/a"}


def call(verb: str = "ADD", stdin: bytes | None = None, **env: str) -> Call:
    return parse({"CNI_COMMAND": verb, **ENV, **env}, configuration() if stdin is None else stdin)


def error(verb: str = "ADD", stdin: bytes | None = None, **env: str) -> CniError:
    with pytest.raises(CniError) as caught:
        call(verb, stdin, **env)
    return caught.value


def test_a_call_as_containerd_makes_it() -> None:
    runtime = {
        "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "127.0.0.1"}],
        "bandwidth": {"IngressRate": 1000, "IngressBurst": 4294967295, "EgressRate": 0, "EgressBurst": 0},
    }
    arguments = "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1;NEW=1"
    made = call(stdin=configuration("1.0.0", runtimeConfig=runtime), CNI_ARGS=arguments, CNI_PATH="/opt/cni/bin")
    assert (made.verb, made.version, made.network, made.id, made.netns) == (
        "ADD",
        "1.0.0",
        "podplane",
        ("c1", "eth0"),
        ENV["CNI_NETNS"],
    )
    assert made.arguments == Arguments("default", "web", "u")
    assert [one.asked for one in made.runtime.port_mappings] == [HostPort(8080, 80, "TCP", "127.0.0.1")]
    assert made.runtime.bandwidth.asked == Bandwidth(1000, 4294967295)


def spelt(names: dict[str, Any], uppers: list[bool]) -> dict[str, Any]:
    """With the letters of all names in upper case where the list says so."""
    return {"".join(c.upper() if u else c.lower() for c, u in zip(key, uppers, strict=False)): names[key] for key in names}


@given(st.lists(st.booleans(), min_size=20, max_size=20))
def test_fields_of_capabilities_are_known_in_any_case(uppers: list[bool]) -> None:
    ports, rates = PORT | {"hostIP": "127.0.0.1"}, {"ingressRate": 1000, "egressRate": 1000, "egressBurst": 9}
    odd = {"portMappings": [spelt(ports, uppers)], "bandwidth": spelt(rates, uppers)}
    usual = {"portMappings": [ports], "bandwidth": rates}
    assert call(stdin=configuration(runtimeConfig=odd)) == call(stdin=configuration(runtimeConfig=usual))


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_has_its_verbs(version: str) -> None:
    assert call("ADD", configuration(version)).version == version
    assert call("DEL", configuration(version)).version == version
    for verb, since in calls.SINCE.items():
        stdin = configuration(version, prevResult=MADE)
        if VERSIONS.index(version) < VERSIONS.index(since):
            assert error(verb, stdin).code is Code.INCOMPATIBLE_VERSION
        else:
            assert call(verb, stdin).verb == verb


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "1.2.0", "2.0.0", "", "x"])
def test_other_versions_are_refused_by_all_verbs(version: str) -> None:
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        assert error(verb, configuration(version)).code is Code.INCOMPATIBLE_VERSION


def test_version_is_answered_whatever_is_said() -> None:
    for stdin, version in (
        (b"", "1.1.0"),
        (b"[]", "1.1.0"),
        (configuration("0.4.0"), "0.4.0"),
        (configuration("9.9.9"), "1.1.0"),
    ):
        assert parse({"CNI_COMMAND": "VERSION"}, stdin) == Call("VERSION", version)
    assert version_of(b"[" * 100_000) == "1.1.0"
    assert version_of(b'{"cniVersion": ["1.0.0"]}') == "1.1.0"


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"CNI_COMMAND": ""}, "CNI_COMMAND"),
        ({"CNI_COMMAND": "add"}, "CNI_COMMAND"),
        ({"CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "-a"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "a/b"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "a\n"}, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": ""}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a" * 16}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "ä" * 8}, "CNI_IFNAME"),
        ({"CNI_IFNAME": ".."}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "lo"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a:b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "eth%d"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a\x07"}, "CNI_IFNAME"),
        ({"CNI_NETNS": ""}, "CNI_NETNS"),
        ({"CNI_ARGS": "K8S_POD_NAME"}, "CNI_ARGS"),
        ({"CNI_ARGS": "=x"}, "CNI_ARGS"),
        ({"CNI_ARGS": "COLOUR=red"}, "COLOUR"),
        ({"CNI_ARGS": "IgnoreUnknown=0;COLOUR=red"}, "COLOUR"),
        ({"CNI_ARGS": "IgnoreUnknown=maybe"}, "IgnoreUnknown"),
    ],
)
def test_a_variable_that_is_wrong_is_named(env: dict[str, str], named: str) -> None:
    found = error(**env) if "CNI_COMMAND" not in env else error(env["CNI_COMMAND"])
    assert (found.code, named in found.message) == (Code.INVALID_ENVIRONMENT, True)


def test_variables_that_are_missing_are_counted() -> None:
    assert error(CNI_NETNS="").message == "ADD needs the environment variable CNI_NETNS"
    assert error(CNI_NETNS="", CNI_IFNAME="").message == "ADD needs the environment variables CNI_IFNAME, CNI_NETNS"


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_object_is_not_decoded(stdin: bytes) -> None:
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        assert error(verb, stdin).code is Code.NOT_DECODED


PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": 5}, "name"),
    ({"type": 5}, "type"),
    ({"args": []}, "args"),
    ({"args": {"cni": {"ips": "10.0.0.1"}}}, "args.cni.ips"),
    ({"args": {"cni": {"ips": ["x"]}}}, "args.cni.ips"),
    ({"args": {"podplane": {"formerIPs": ["x"]}}}, "args.podplane.formerIPs"),
    ({"args": {"podplane": {"colour": 1}}}, "args.podplane"),
    ({"dns": {"nameservers": "10.0.0.1"}}, "dns.nameservers"),
    ({"runtimeConfig": []}, "runtimeConfig"),
    ({"runtimeConfig": {"ips": ["10.0.0.300"]}}, "runtimeConfig.ips"),
    ({"runtimeConfig": {"ips": [5]}}, "runtimeConfig.ips[0]"),
    ({"runtimeConfig": {"mac": "x"}}, "runtimeConfig.mac"),
    ({"runtimeConfig": {"mac": "ff:ff:ff:ff:ff:ff"}}, "runtimeConfig.mac"),
    ({"runtimeConfig": {"bandwidth": {"ingressRate": -1}}}, "runtimeConfig.bandwidth.ingressRate"),
    ({"runtimeConfig": {"bandwidth": {"ingressRate": "1M"}}}, "runtimeConfig.bandwidth.ingressRate"),
    (
        {"runtimeConfig": {"bandwidth": {"ingressRate": 1}}},
        "runtimeConfig.bandwidth.ingressRate 1 is not within 1k and 1P bit/s",
    ),
    ({"runtimeConfig": {"bandwidth": {"EgressRate": 10**16}}}, "runtimeConfig.bandwidth.egressRate"),
    ({"runtimeConfig": {"bandwidth": {"egressBurst": 9}}}, "runtimeConfig.bandwidth.egressBurst 9 makes no sense"),
    ({"runtimeConfig": {"portMappings": {}}}, "runtimeConfig.portMappings"),
    ({"runtimeConfig": {"portMappings": [PORT | {"hostPort": 0}]}}, "runtimeConfig.portMappings[0].hostPort"),
    (
        {"runtimeConfig": {"portMappings": [PORT, PORT | {"containerPort": 65536}]}},
        "runtimeConfig.portMappings[1].containerPort",
    ),
    ({"runtimeConfig": {"portMappings": [PORT | {"protocol": "icmp"}]}}, "runtimeConfig.portMappings[0]"),
    ({"runtimeConfig": {"portMappings": [PORT | {"hostIP": "x"}]}}, "runtimeConfig.portMappings[0]"),
    ({"runtimeConfig": {"portMappings": [{"hostPort": 1}]}}, "runtimeConfig.portMappings[0]"),
    ({"runtimeConfig": {"portMappings": [PORT | {"hostName": "x"}]}}, "runtimeConfig.portMappings[0]: Object contains unknown"),
    ({"runtimeConfig": {"bandwidth": {"rate": 1}}}, "runtimeConfig.bandwidth: Object contains unknown field `rate`"),
    (
        {"runtimeConfig": {"portMappings": [PORT, PORT | {"containerPort": 81}]}},
        "runtimeConfig: portMappings: host port 8080/tcp is to lead to two ports",
    ),
    ({"prevResult": []}, "prevResult"),
    ({"prevResult": {"ips": [{"address": "x"}]}}, "prevResult.ips[0]"),
    ({"prevResult": {"ips": [{"address": "10.0.0.1/24", "interface": 0}]}}, "prevResult"),
    ({"prevResult": {"interfaces": [{"mac": "x"}]}}, "prevResult.interfaces[0]"),
    ({"prevResult": {"routes": [{"dst": "x"}]}}, "prevResult.routes[0]"),
]


@pytest.mark.parametrize(("fields", "named"), MALFORMED)
def test_a_field_that_is_malformed_is_named(fields: dict[str, Any], named: str) -> None:
    found = error(stdin=configuration(**fields))
    assert (found.code, found.message.startswith(named)) == (Code.INVALID_CONFIGURATION, True), found.message


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"ipam": {"type": "host-local"}}, 'ipam: {"type":"host-local"}'),
        ({"ipMasq": True}, "ipMasq: true"),
        (
            {"runtimeConfig": {"infinibandGUID": "c2:11:22:33:44:55:66:77"}},
            'runtimeConfig.infinibandGUID: "c2:11:22:33:44:55:66:77"',
        ),
        ({"runtimeConfig": {"ipRanges": []}}, "runtimeConfig.ipRanges: []"),
    ],
)
def test_a_field_that_is_not_known_is_named_with_its_value(fields: dict[str, Any], named: str) -> None:
    found = error(stdin=configuration(**fields))
    assert (found.code, found.message) == (Code.UNSUPPORTED_FIELD, f"unsupported field {named}")


def test_del_reads_no_more_than_it_needs() -> None:
    for fields, _ in MALFORMED:
        if "name" not in fields:
            assert call("DEL", configuration(**fields), CNI_NETNS="", CNI_ARGS="nonsense").id == ("c1", "eth0")
    assert call("DEL", configuration(ipam={})).id == ("c1", "eth0")


def test_keys_of_the_protocol_and_null_say_nothing() -> None:
    fields = {
        "cni.dev/new": 1,
        "capabilities": {"bandwidth": True},
        "runtimeConfig": {"ips": None, "bandwidth": None},
        "prevResult": None,
    }
    assert call(stdin=configuration(**fields)) == call()


def test_addresses_are_asked_for_in_three_ways_of_which_the_newest_counts() -> None:
    args = {"cni": {"ips": ["10.244.1.8/24"], "labels": []}, "other": 1}
    assert call(CNI_ARGS="IP=10.244.1.9/24").ips == ("10.244.1.9",)
    assert call(stdin=configuration(args=args), CNI_ARGS="IP=10.244.1.9").ips == ("10.244.1.8",)
    both = configuration(args=args, runtimeConfig={"ips": ["10.244.1.7", "fd00::7/64"]})
    assert call(stdin=both, CNI_ARGS="IP=10.244.1.9").ips == ("10.244.1.7", "fd00::7")
    assert error(CNI_ARGS="IP=x").message.startswith("CNI_ARGS: IP")


def test_a_mac_is_asked_for_in_two_ways_of_which_the_newer_counts() -> None:
    assert call(CNI_ARGS="MAC=02-00-00-00-00-0A").runtime.mac == "02:00:00:00:00:0a"
    both = configuration(runtimeConfig={"mac": "02:00:00:00:00:0b"})
    assert call(stdin=both, CNI_ARGS="IP=10.244.1.9;MAC=02:00:00:00:00:0a").runtime.mac == "02:00:00:00:00:0b"
    assert error(CNI_ARGS="MAC=x").message.startswith("CNI_ARGS: MAC: MAC 'x' is not of six bytes")
    assert error(stdin=configuration(runtimeConfig={"mac": "x"})).message.startswith("runtimeConfig.mac: MAC 'x'")


def test_what_gc_is_to_keep() -> None:
    one, other = ({"containerID": name, "ifname": "eth0"} for name in ("a", "b"))
    assert call("GC").kept is None
    assert call("GC", configuration(**{"cni.dev/valid-attachments": []})).kept == frozenset()
    both = {"cni.dev/valid-attachments": [one], "cni.dev/attachments": [other]}
    assert call("GC", configuration(**both)).kept == {("a", "eth0"), ("b", "eth0")}
    assert call("GC", configuration(**{"cni.dev/valid-attachments": None})).kept == frozenset()
    found = error("GC", configuration(**{"cni.dev/valid-attachments": [{"ifname": "eth0"}]}))
    assert (found.code, found.message.startswith("cni.dev/valid-attachments[0]")) == (Code.INVALID_CONFIGURATION, True)


def test_check_needs_the_result_of_add() -> None:
    assert error("CHECK").message.startswith("prevResult is missing")
    refused = {"cniVersion": "1.1.0", "code": 11, "msg": "try again"}
    elsewhere = {"interfaces": [{"name": "eth0"}, {"name": "eth1", "sandbox": "/run/netns/a"}]}
    for verb, previous, said in (
        ("CHECK", refused, "prevResult.code: it is an error, and no result of ADD: try again"),
        ("ADD", refused, "prevResult.code: it is an error"),
        ("CHECK", {}, "prevResult.interfaces: eth0 of the container is not among them"),
        ("CHECK", elsewhere, "prevResult.interfaces: eth0 of the container is not among them"),
    ):
        found = error(verb, configuration(prevResult=previous))
        assert (found.code, found.message.startswith(said)) == (Code.INVALID_CONFIGURATION, True), found.message
    assert call("ADD", configuration(prevResult={})).previous is not None, "what is first in a chain may make no interface"
    assert call("DEL", configuration(prevResult=refused)).verb == "DEL"


def test_the_former_mtu_is_that_of_the_containers_interface() -> None:
    near, far = {"name": "eth0", "mtu": 9000}, {"name": "eth0", "sandbox": "/run/netns/a", "mtu": 1400}
    assert call("CHECK", configuration(prevResult={"interfaces": [near, far]})).previous_mtu == 1400
    assert call("CHECK", configuration(prevResult=MADE)).previous_mtu is None
    assert call().previous_mtu is None


def test_a_dns_section_is_passed_on() -> None:
    assert call(stdin=configuration(dns={"nameservers": ["10.0.0.1"]})).dns == Dns(("10.0.0.1",))


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)
keys = st.sampled_from(
    ["cniVersion", "name", "type", "args", "dns", "runtimeConfig", "prevResult", "cni.dev/valid-attachments", "ipam"]
)


@given(st.sampled_from(calls.VERBS), st.dictionaries(keys, anything), st.text(max_size=9), st.text(max_size=9))
def test_whatever_is_sent_is_a_call_or_an_error_that_can_be_told(
    verb: str, fields: dict[str, Any], name: str, args: str
) -> None:
    try:
        made = call(verb, configuration(**fields), CNI_IFNAME=name, CNI_ARGS=args)
    except CniError as found:
        told = msgspec.json.decode(render(found, "1.1.0"))
        assert told["code"] in list(Code) and told["msg"]
    else:
        assert made.verb == verb and made.version in VERSIONS


@given(st.binary(max_size=60))
def test_whatever_bytes_are_sent_are_no_surprise(stdin: bytes) -> None:
    with pytest.raises(CniError):
        call(stdin=stdin)


mappings = st.builds(PortMapping, st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp", "sctp"]))


@given(st.lists(mappings, max_size=3, unique_by=lambda one: (one.host_port, one.protocol)))
def test_port_mappings_come_as_they_were_sent(asked: list[PortMapping]) -> None:
    made = call(stdin=configuration(runtimeConfig={"portMappings": msgspec.to_builtins(asked)}))
    assert list(made.runtime.port_mappings) == asked
    assert [PortMapping.of(one.asked) for one in asked] == asked
