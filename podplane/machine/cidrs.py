"""The networks of a cluster's pods and Services, where the configuration does not name them: found in what the cluster says of itself.

    pods      ConfigMap kube-system/kubeadm-config (networking.podSubnet) ── else ──► the blocks of all Nodes (spec.podCIDRs)
    Services  ServiceCIDRs (networking.k8s.io/v1) ── else ──► kubeadm-config (networking.serviceSubnet)

Blocks say less than the network that they are taken from. So the least network that holds all of them counts, and it grows when a Node
comes whose block is not in it, each time to twice its size at the least. Where they have no narrow one in common, because a Node has a
block from elsewhere, those count that share one with the own Node's; those of other Nodes are left out (`apart`).

Sources: kubeadm, cmd/kubeadm/app/apis/kubeadm/v1beta4, ClusterConfiguration; KEP-1880 (ServiceCIDR).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine.known import Whose
from podplane.state.value import IPNetwork, network_of

RANGES = "servicecidrs.networking.k8s.io"
NAMESPACE, KUBEADM, KEY = "kube-system", "kubeadm-config", "ClusterConfiguration"
WIDEST = {4: 8, 6: 32}
"""No network of pods is wider: blocks that have no narrower one in common are of several."""
HIDDEN = (403, 404)
"""What is not there, or may not be seen."""
BLOCKS, RANGES_FROM = "the blocks of Nodes", "ServiceCIDRs"
FILE = "networks.json"
log = logging.getLogger(__name__)


class Cidrs(msgspec.Struct, frozen=True):
    """The networks of pods and of Services, each with where it was found; () for none."""

    cluster: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    cluster_from: str = ""
    service_from: str = ""

    @property
    def of_pods(self) -> str:
        """In words."""
        return _said("pods", self.cluster, self.cluster_from)

    @property
    def of_services(self) -> str:
        """Likewise."""
        return _said("Services", self.service, self.service_from)


def _said(whose: str, networks: Iterable[str], where: str) -> str:
    found = ", ".join(networks)
    return f"{found} for {whose} (by {where})" if found else f"none for {whose}"


class KeptCidrs:
    """What was found last, in a file of the run folder, for an agent that starts while the API is away."""

    def __init__(self, folder: Path, whose: Whose) -> None:
        self._path = folder / FILE
        self._whose = whose

    def load(self) -> Cidrs | None:
        """None when nothing of this cluster is there."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (OSError, msgspec.MsgspecError, RecursionError):
            return None
        return found.cidrs if found.whose == self._whose else None

    def save(self, cidrs: Cidrs) -> None:
        """Replace it. What the disk does not take is in the log: an agent that starts without the API waits then."""
        draft = self._path.with_name(f"{FILE}.new")
        try:
            draft.write_bytes(msgspec.json.encode(_Kept(self._whose, cidrs)))
            draft.replace(self._path)
        except OSError as error:
            log.warning("networks path=%s error=%s", self._path, error.strerror)


class _Kept(msgspec.Struct, frozen=True):
    whose: Whose
    cidrs: Cidrs


async def find(client: Client, blocks: Iterable[str], own: Iterable[str] = (), kept: Iterable[str] = ()) -> Cidrs:
    """What the cluster says now, where Nodes have these blocks, to the Node with these `own` ones; `kept` are networks of pods that were
    found before. ApiError when it does not answer."""
    kubeadm = of_kubeadm(await kubeadm_config(client))
    service, service_from = await _ranges(client), RANGES_FROM
    if not service:
        service, service_from = kubeadm.service, kubeadm.service_from
    cluster = kubeadm.cluster or covering(blocks, own, kept)
    return Cidrs(cluster, service, kubeadm.cluster_from or BLOCKS, service_from)


async def with_ranges(client: Client, known: Cidrs) -> Cidrs:
    """What is known, with the networks of Services that the cluster has now. ApiError when it does not answer; where it has no
    ServiceCIDR, or shows none, those that are known stay."""
    ranges = await _ranges(client)
    return msgspec.structs.replace(known, service=ranges, service_from=RANGES_FROM) if ranges else known


async def kubeadm_config(client: Client) -> Mapping[str, Any]:
    """kubeadm's ConfigMap; nothing where there is none, or it may not be seen. ApiError when the API does not answer."""
    try:
        return await client.get("configmaps", NAMESPACE, KUBEADM)
    except ApiError as error:
        if error.code not in HIDDEN:
            raise
        return {}


async def _ranges(client: Client) -> tuple[str, ...]:
    try:
        found = msgspec.json.decode(await client.list(RANGES))["items"]
    except ApiError as error:
        if error.code not in HIDDEN:
            raise
        return ()
    texts = (text for one in found for text in one.get("spec", {}).get("cidrs", ()))
    return networks(texts)


def of_kubeadm(config_map: Mapping[str, Any]) -> Cidrs:
    """What kubeadm's ConfigMap says; nothing where it makes no sense."""
    networking = _part(_cluster_configuration(config_map), "networking")
    cluster, service = (networks(str(networking.get(name) or "").split(",")) for name in ("podSubnet", "serviceSubnet"))
    where = f"the ConfigMap {KUBEADM}"
    return Cidrs(cluster, service, where if cluster else "", where if service else "")


def other_allocator(config_map: Mapping[str, Any]) -> str:
    """Why kube-controller-manager gives blocks to Nodes, as kubeadm starts it with --allocate-node-cidrs where the cluster has a podSubnet;
    "" when nothing says so."""
    content = _cluster_configuration(config_map)
    given = _part(content, "controllerManager").get("extraArgs") or {}
    if isinstance(given, list):  # v1beta4; before, a mapping
        given = {one.get("name"): one.get("value") for one in given if isinstance(one, dict)}
    if not _part(content, "networking").get("podSubnet") or str(given.get("allocate-node-cidrs", "true")).lower() == "false":
        return ""
    return (
        f"kube-controller-manager gives them, as the ConfigMap {KUBEADM} has a podSubnet: "
        "start it with --allocate-node-cidrs=false (controllerManager.extraArgs), or have no nodeBlocks here"
    )


def _cluster_configuration(config_map: Mapping[str, Any]) -> object:
    import yaml  # where the configuration names the networks, nobody needs it

    try:
        return yaml.load(str((config_map.get("data") or {}).get(KEY, "")), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return None


def _part(content: object, name: str) -> Mapping[str, Any]:
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Those of these that are networks."""
    found = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_network(text.strip())))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))


def covering(blocks: Iterable[str], own: Iterable[str] = (), kept: Iterable[str] = ()) -> tuple[str, ...]:
    """The least network of each IP version that holds all of these blocks. Where they have no narrow one in common: those of `kept`, if
    they hold all `own` blocks, else the least that hold the own ones and those which share a narrow network with these."""
    least: dict[int, dict[IPNetwork, IPNetwork]] = {}
    for block in map(network_of, networks(blocks)):
        of_version = least.setdefault(block.version, {})
        is_held = any(holds(one, block) for one in of_version.values())
        if not is_held and (family := _family(block)):
            of_version[family] = _with(of_version.get(family, block), block)
    mine, before = (tuple(map(network_of, networks(one))) for one in (own, kept))
    found = (_chosen(version, of_version, mine, before) for version, of_version in least.items())
    return tuple(str(one) for of_version in found for one in of_version)


def _chosen(
    version: int, least: Mapping[IPNetwork, IPNetwork], own: Iterable[IPNetwork], kept: Iterable[IPNetwork]
) -> Iterable[IPNetwork]:
    """Of one IP version; `least` has the network of each family of blocks."""
    if len(least) <= 1:
        return least.values()
    mine, before = ([one for one in networks if one.version == version] for networks in (own, kept))
    if before and all(any(holds(network, block) for network in before) for block in mine):
        return before
    return [network for family, network in least.items() if family in map(_family, mine)]


def apart(blocks: Iterable[str], clusters: Iterable[str]) -> dict[str, str]:
    """Those of these blocks that can't be of these networks of pods, nor of wider ones, and why, as Nodes have them."""
    known = list(map(network_of, clusters))
    families, why = {_family(one) for one in known}, {}
    for text in blocks:
        block = network_of(text)
        if any(one.version == block.version and holds(one, block) for one in known) or _family(block) in families:
            continue
        if same := ", ".join(str(one) for one in known if one.version == block.version):
            why[text] = f"the block {text} has no network of /{WIDEST[block.version]} in common with those of pods ({same})"
    return why


def _family(block: IPNetwork) -> IPNetwork | None:
    """The widest network of pods that may hold it: blocks with the same one have a narrow network in common. None for what is wider."""
    widest = WIDEST[block.version]
    return block.supernet(new_prefix=widest) if block.prefixlen >= widest else None


def _with(network: IPNetwork, block: IPNetwork) -> IPNetwork:
    """The least network that holds both."""
    while not holds(network, block):
        network = network.supernet()
    return network


def holds(network: IPNetwork, block: IPNetwork) -> bool:
    """Is this block within that network?"""
    return block.prefixlen >= network.prefixlen and block.network_address in network
