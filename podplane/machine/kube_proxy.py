"""What kube-proxy has on this machine: whether it runs, what it left in the kernel, and how that is removed once it is gone.

    runs    a process of its name in this network namespace, or an answer at its ports that is not podplane's
    left    nftables: the tables `ip kube-proxy` and `ip6 kube-proxy`
            iptables over nf_tables: its chains in the tables nat, filter and mangle, and the rules that lead to them
            legacy iptables, IPVS: named, and left to `kube-proxy --cleanup`

kubelet's own chains (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT) are not kube-proxy's, and stay.

Sources: k8s.io/kubernetes, pkg/proxy/nftables (kubeProxyTable), pkg/proxy/iptables (CleanupLeftovers), pkg/proxy/ipvs.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from podplane.kernel.legacy_iptables import LegacyTable
from podplane.kernel.nft.others import Place, TableName, Tables
from podplane.model.config import AGENT_PORT, STATUS_PORT
from podplane.model.words import counted
from podplane.servers.http import SERVER
from podplane.state.nft import Chain, Immediate, Rule, Verdict

NAME = "kube-proxy"
TABLES = frozenset({("ip", NAME), ("ip6", NAME)})
FAMILIES = ("ip", "ip6")
CHAINS = {
    "nat": frozenset({"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY"}),
    "filter": frozenset(
        {
            *("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"),
            "KUBE-PROXY-CANARY",
        }
    ),
    "mangle": frozenset({"KUBE-PROXY-CANARY"}),
}
"""Of kube-proxy, by the table of iptables."""
PREFIXES = {"nat": ("KUBE-SVC-", "KUBE-SVL-", "KUBE-FW-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-XLB-")}
IPVS_LINK = "kube-ipvs0"
ASK_SECONDS = 1.0
COMM_SIZE = 15
"""Characters of a process' name that the kernel keeps."""


class Left(msgspec.Struct, frozen=True):
    """What there is of it in the kernel: what can be removed, and in `unreached`, in words, what can't be from here."""

    tables: tuple[TableName, ...] = ()
    chains: tuple[Place, ...] = ()
    rules: Mapping[Place, tuple[int, ...]] = {}
    unreached: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tables or self.chains or self.unreached)

    @property
    def can_be_removed(self) -> bool:
        """Is there anything that `remove` removes?"""
        return bool(self.tables or self.chains)

    def removable_words(self) -> list[str]:
        """What `remove` removes."""
        parts = [f"table {family} {name}" for family, name in self.tables]
        return [*parts, *([f"{counted(len(self.chains), 'chain')} of iptables (KUBE-…)"] if self.chains else [])]

    def __str__(self) -> str:
        return ", ".join((*self.removable_words(), *self.unreached))


def left(tables: Tables, legacy: Iterable[LegacyTable] = (), links: Iterable[str] = ()) -> Left:
    """What is left of it, or there of one that runs."""
    named = tuple(sorted(TABLES & tables.tables()))
    chains = [one for one in tables.chains() if one.family in FAMILIES and one.table in CHAINS]
    own = tuple(_place(one) for one in chains if _is_its(one.table, one.name))
    touched = {(one.family, one.table) for one in own}
    rules: dict[Place, tuple[int, ...]] = {}
    for chain in chains:
        place = _place(chain)
        is_read = chain.hook is not None and (chain.family, chain.table) in touched
        leading = [one.handle for one in tables.rules(place) if _is_its(chain.table, _target(one.rule))] if is_read else []
        if leading:
            rules[place] = tuple(leading)
    return Left(named, own, rules, (*_legacy(legacy), *(f"link {one} (IPVS)" for one in links if one == IPVS_LINK)))


def _legacy(found: Iterable[LegacyTable]) -> Iterator[str]:
    for table in found:
        if number := sum(_is_its(table.name, chain) for chain in table.chains):
            yield f"{counted(number, 'chain')} of the legacy iptables table {table.name} (IPv{table.version})"


def _place(chain: Chain) -> Place:
    return Place(chain.family, chain.table, chain.name)


def _is_its(table: str, chain: str) -> bool:
    return chain in CHAINS.get(table, ()) or chain.startswith(PREFIXES.get(table, (NAME,)))


def _target(rule: Rule) -> str:
    """The chain that a rule leads to; "" for none."""
    found = (one.data.chain for one in rule.expressions if isinstance(one, Immediate) and isinstance(one.data, Verdict))
    return next(found, "")


def remove(tables: Tables, found: Left) -> None:
    """All of it that can be, in one transaction. KernelError when the kernel refuses, and then nothing is changed."""
    tables.remove(found.tables, found.chains, found.rules)


def why_runs() -> str:
    """By what one sees that it runs here; "" when nothing tells of it. It blocks for some seconds at most."""
    for pid in _processes():
        return f"process {pid} is a kube-proxy"
    for port, path in ((STATUS_PORT, "/proxyMode"), (AGENT_PORT, "/healthz")):
        if _answers(port, path):
            return f"port {port} of this node's localhost is answered as kube-proxy's, and not by podplane"
    return ""


def had(words: str) -> bool:
    """Is this, an object in the words of `machine.snapshot`, what a kube-proxy has while it runs or leaves behind?"""
    is_table = words in {f"nf_tables table {family} {name}" for family, name in TABLES}
    return is_table or (words.startswith("socket tcp ") and words.endswith(f" port {STATUS_PORT}"))


def _processes() -> Iterator[int]:
    """Processes of its name in the network namespace of this one, as far as they are seen from here."""
    own = os.stat("/proc/self/ns/net").st_ino
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == NAME[:COMM_SIZE] and os.stat(path.parent / "ns/net").st_ino == own:
                yield int(path.parent.name)
        except OSError:
            continue


def _answers(port: int, path: str) -> bool:
    """Does anybody but podplane answer?"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().getheader("server", "") != SERVER
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
