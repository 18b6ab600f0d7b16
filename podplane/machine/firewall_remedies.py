"""Which chains of firewalls drop packets of pods, in words, and the commands that let these through, in those of whoever made the chain.

Of legacy iptables the policies alone are known, and no command is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from podplane.kernel.legacy_iptables import LegacyTable
from podplane.kernel.nft.others import Place
from podplane.machine.firewalls import SEEN_BY, Kind, Suspect, Way
from podplane.model.config import NetworkConfig
from podplane.model.words import listed
from podplane.state.nft import Chain
from podplane.state.value import network_of

IPTABLES: Mapping[str, str] = {"ip": "iptables", "ip6": "ip6tables"}
CHAINS = "FORWARD", "INPUT"
"""Those of iptables, which others' tables of that name write otherwise."""
LEGACY: Mapping[int, str] = {4: "iptables-legacy", 6: "ip6tables-legacy"}


def sentences(found: Iterable[Suspect], legacy: Iterable[LegacyTable], config: NetworkConfig) -> list[str]:
    """A line for each chain."""
    by_chain: dict[tuple[Chain, bool], list[Way]] = {}
    for one in found:
        by_chain.setdefault((one.chain, one.is_certain), []).append(one.way)
    lines = [_sentence(chain, is_certain, ways, config) for (chain, is_certain), ways in by_chain.items()]
    return [*lines, *(line for table in legacy for line in _of_legacy(table))]


def _of_legacy(table: LegacyTable) -> Iterator[str]:
    for hook in sorted(table.dropping) if table.name == "filter" else ():
        command, name = LEGACY[table.version], hook.upper()
        yield (
            f"{command}'s table filter, chain {name}, drops what no rule of it accepts, and its rules are not read: packets of "
            f"pods may be among that; {command} -S {name} shows them"
        )


def _sentence(chain: Chain, is_certain: bool, ways: Sequence[Way], config: NetworkConfig) -> str:
    place = Place(chain.family, chain.table, chain.name)
    policy = " (policy drop)" if chain.hook is not None and chain.hook.policy == "drop" else ""
    does = "drops" if is_certain else "may drop"
    what = listed(list(dict.fromkeys(way.what for way in ways)))
    return f"{place}{policy} {does} packets {what}: {_remedy(chain, ways, config)}"


class Wanted(NamedTuple):
    """What is to be let through: from and to `pods`, which are networks; from `sources`, which are, to the node itself; and tunnels, by
    their protocols: "udp", to this port, and "gre"."""

    pods: Sequence[str]
    sources: Sequence[str]
    carriers: Sequence[str]
    port: int


def _remedy(chain: Chain, ways: Sequence[Way], config: NetworkConfig) -> str:
    """What to do, in the words of whoever made the chain."""
    kinds = {way.kind for way in ways}
    carriers = list(dict.fromkeys(way.packet.protocol for way in ways if way.kind is Kind.TUNNEL))
    cidrs = [one for one in config.cluster_cidrs if network_of(one).version in SEEN_BY[chain.family]]
    pods, sources = (cidrs if kind in kinds else [] for kind in (Kind.PODS, Kind.NODE))
    wanted = Wanted(pods, sources, carriers, config.vxlan_port)
    if chain.table == "firewalld":
        return "; ".join(_firewalld(wanted, config.bridge, config.uplink))
    if chain.table == "filter" and chain.family in IPTABLES and chain.name in CHAINS:
        iptables = _iptables(f"{IPTABLES[chain.family]} -I {chain.name}", wanted)
        return f"{'; '.join(iptables)}, or, with ufw: {'; '.join(_ufw(wanted))}"
    return "; ".join(_nft(f"nft insert rule {chain.family} {chain.table} {chain.name}", wanted))


def _firewalld(wanted: Wanted, bridge: str, uplink: str) -> Iterator[str]:
    """A zone has pods, and what they send to the node and elsewhere; a policy leads to it from everywhere."""
    change = "firewall-cmd --permanent"
    if cidrs := wanted.pods or wanted.sources:
        sources = " ".join(f"--add-source={one}" for one in cidrs)
        yield f"{change} --zone=trusted {sources} --add-interface={bridge}"
    if wanted.pods:
        yield f"{change} --new-policy=to-pods"
        options = ("--add-ingress-zone=ANY", "--add-egress-zone=trusted", "--set-target=ACCEPT")  # one at a time
        yield from (f"{change} --policy=to-pods {one}" for one in options)
    for one in wanted.carriers:
        zone = f"--zone=$(firewall-cmd --get-zone-of-interface={uplink})"
        yield f"{change} {zone} {f'--add-port={wanted.port}/udp' if one == 'udp' else '--add-protocol=gre'}"
    yield "firewall-cmd --reload"


def _iptables(insert: str, wanted: Wanted) -> Iterator[str]:
    matches = [f"{end} {one}" for one in wanted.pods for end in ("-s", "-d")]
    matches += [f"-s {one}" for one in wanted.sources]
    matches += [f"-p udp --dport {wanted.port}" if one == "udp" else "-p gre" for one in wanted.carriers]
    return (f"{insert} {match} -j ACCEPT" for match in matches)


def _ufw(wanted: Wanted) -> Iterator[str]:
    yield from (f"ufw route allow {end} {one}" for one in wanted.pods for end in ("from", "to"))
    yield from (f"ufw allow from {one}" for one in wanted.sources)
    for one in wanted.carriers:
        yield f"ufw allow {wanted.port}/udp" if one == "udp" else "ufw allow proto gre from any"


def _nft(insert: str, wanted: Wanted) -> Iterator[str]:
    word = {4: "ip", 6: "ip6"}
    ends = [(one, end) for one in wanted.pods for end in ("saddr", "daddr")] + [(one, "saddr") for one in wanted.sources]
    matches = [f"{word[network_of(one).version]} {end} {one}" for one, end in ends]
    matches += [f"udp dport {wanted.port}" if one == "udp" else "meta l4proto gre" for one in wanted.carriers]
    return (f"{insert} {match} accept" for match in matches)
