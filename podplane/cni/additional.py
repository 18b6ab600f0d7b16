"""Further interfaces of a pod: what it asks for by annotation, what a NetworkAttachmentDefinition says, and what the pod got. Pure.

Source: Kubernetes Network Custom Resource Definition De-facto Standard, version 1.3 (k8snetworkplumbingwg/multi-net-spec).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from podplane.cni.call import ifname_problem
from podplane.cni.network import Attached
from podplane.cni.result import NEWEST, VERSIONS
from podplane.model.pod_info import NETWORKS
from podplane.model.view import BridgeNetwork
from podplane.state.mac import asked_mac

STATUS = "k8s.v1.cni.cncf.io/network-status"
OWN_NETWORK = "podplane"
"""The pods' own network in the status, and the type of configurations of further ones."""
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
WITHOUT_CHECK = ("0.1.0", "0.2.0", "0.3.0", "0.3.1")
TYPE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*")
MOST_INTERFACES = 16
MTU = range(576, 65536)
OWN_PLUGIN = "podplane-cni"
"""It asks the agent, which calls it: neither would end."""


class Selection(msgspec.Struct, frozen=True):
    """One network that a pod asks for."""

    namespace: str
    name: str
    ifname: str
    ips: tuple[str, ...] = ()
    mac: str = ""

    @property
    def path(self) -> str:
        """`namespace/name` of the NetworkAttachmentDefinition."""
        return f"{self.namespace}/{self.name}"


class _Element(msgspec.Struct, forbid_unknown_fields=True):
    """An element of the annotation in JSON."""

    name: str
    namespace: str = ""
    interface: str = ""
    ips: list[str] = []
    mac: str = ""


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    """A configuration of podplane's own type."""

    type: str
    cni_version: str = msgspec.field(default="", name="cniVersion")
    name: str = ""
    subnets: list[str] = []
    mtu: int = 0


class Chain(msgspec.Struct, frozen=True):
    """A network that other plugins make, one after the other: its path, the version of CNI, its name, and their configurations."""

    path: str
    version: str
    name: str
    plugins: tuple[dict[str, Any], ...]
    has_check: bool = True
    """May they be called with CHECK?"""

    @property
    def types(self) -> list[str]:
        """Of the plugins."""
        return [str(one["type"]) for one in self.plugins]

    def has_capability(self, name: str) -> bool:
        """Does any of the plugins take this of a runtime?"""
        return any((one.get("capabilities") or {}).get(name) is True for one in self.plugins)


class Interface(NamedTuple):
    """What a pod got: the name of the network, and the interface."""

    network: str
    attached: Attached


def selections(text: str, namespace: str) -> list[Selection]:
    """The networks of an annotation of a pod in this namespace, in its order. ValueError when it makes no sense; it says why."""
    try:
        found = _from_json(text) if text.lstrip()[:1] in ("[", "{") else [_short(one.strip()) for one in text.split(",")]
        if len(found) > MOST_INTERFACES:
            raise ValueError(f"{len(found)} networks are asked for, and a pod has at most {MOST_INTERFACES}")
        chosen = [_selection(one, namespace, f"net{number}") for number, one in enumerate(found, 1)]
        names = [one.ifname for one in chosen]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"interface {twice} is asked for twice")
    except ValueError as error:
        raise ValueError(f"annotation {NETWORKS}: {error}") from None
    return chosen


def _from_json(text: str) -> list[_Element]:
    try:
        return msgspec.json.decode(text, type=list[_Element])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _short(text: str) -> _Element:
    path, has_interface, interface = text.partition("@")
    namespace, has_namespace, name = path.rpartition("/")
    if (has_interface and not interface) or (has_namespace and not namespace):
        raise ValueError(f"{text!r} is no network: name, namespace/name or namespace/name@interface is one")
    return _Element(name=name, namespace=namespace, interface=interface)


def _selection(one: _Element, namespace: str, ifname: str) -> Selection:
    for what, text in (("name", one.name), ("namespace", one.namespace or namespace)):
        if not NAME.fullmatch(text):
            raise ValueError(f"{text!r} is no {what} of a network")
    name = one.interface or ifname
    if why := "is the pod's own" if name == "eth0" else ifname_problem(name):
        raise ValueError(f"{name!r} is no name of a further interface: it {why}")
    ips = tuple(str(ipaddress.ip_interface(ip).ip) for ip in one.ips)
    return Selection(one.namespace or namespace, one.name, name, ips, asked_mac(one.mac) if one.mac else "")


def network(path: str, config: str) -> BridgeNetwork | Chain:
    """What `spec.config` of a NetworkAttachmentDefinition says. ValueError when it makes no sense; it says why."""
    try:
        return _network(path, config)
    except ValueError as error:
        raise ValueError(f"NetworkAttachmentDefinition {path}: {error}") from None


def _network(path: str, config: str) -> BridgeNetwork | Chain:
    if not config.strip():
        raise ValueError("it has no spec.config, and files of nodes are not read")
    content = _decoded(config)
    plugins = content.get("plugins", [content])
    if not isinstance(plugins, list) or not plugins or not all(isinstance(one, dict) for one in plugins):
        raise ValueError("spec.config: plugins is no list of configurations")
    for one in plugins:
        if not isinstance(one.get("type"), str) or not TYPE.fullmatch(one["type"]):
            raise ValueError(f"spec.config: {one.get('type')!r} is no type of a plugin")
        if one["type"] == OWN_PLUGIN:
            raise ValueError(
                f"spec.config: {OWN_PLUGIN} makes the pods' own network: {OWN_NETWORK} is the type of further ones"
            )
        if not isinstance(one.get("capabilities", {}), dict):
            raise ValueError("spec.config: capabilities is no mapping")
    if all(one["type"] != OWN_NETWORK for one in plugins):
        version, name = content.get("cniVersion", "1.0.0"), content.get("name", path.replace("/", "-"))
        has_check = version not in WITHOUT_CHECK and content.get("disableCheck") is not True
        return Chain(path, str(version), str(name), tuple(plugins), has_check)
    if (version := content.get("cniVersion", NEWEST)) not in VERSIONS:
        raise ValueError(f"spec.config: cniVersion {version!r} is none of {', '.join(VERSIONS)}")
    if len(plugins) > 1:
        raise ValueError(f"spec.config: type {OWN_NETWORK} has no plugins before it or after it")
    return _bridge_network(path, plugins[0])


def _bridge_network(path: str, content: dict[str, Any]) -> BridgeNetwork:
    try:
        own = msgspec.convert(content, _Config)
    except msgspec.MsgspecError as error:
        raise ValueError(f"spec.config: {error}") from None
    if own.mtu and own.mtu not in MTU:
        raise ValueError(f"spec.config: mtu {own.mtu} is not within {MTU[0]} and {MTU[-1]}")
    try:
        return BridgeNetwork(path, subnets_of(own.subnets), own.mtu)
    except ValueError as error:
        raise ValueError(f"spec.config: subnets: {error}") from None


def _decoded(config: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(config, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"spec.config is no JSON object: {error}") from None


def subnets_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The subnets of a further network, one an IP version. ValueError says why they can't be that."""
    subnets = list(map(ipaddress.ip_network, texts))
    if not subnets or len({one.version for one in subnets}) < len(subnets):
        raise ValueError("write one CIDR, or one of IPv4 and one of IPv6")
    for one in subnets:
        if one.max_prefixlen - one.prefixlen < 3 or not one.is_private or one.is_loopback or one.is_link_local:
            raise ValueError(f"{one} can't be one: write a private network with room for 8 addresses or more")
    return tuple(map(str, subnets))


def network_status(own: Attached, further: Iterable[Interface]) -> str:
    """The annotation that says what a pod got."""
    elements = [_element(OWN_NETWORK, own, default=True)]
    elements += [_element(one.network, one.attached) for one in further]
    return msgspec.json.encode(elements).decode()


def _element(network: str, attached: Attached, **more: bool) -> dict[str, Any]:
    found = {"name": network, "interface": attached.interface, "ips": attached.ips, "mac": attached.mac}
    mtu = {"mtu": attached.mtu} if attached.mtu else {}  # plugins need not name it
    return {**found, **mtu, **more, "dns": {}}
