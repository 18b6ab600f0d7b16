"""Beside firewalls and kube-proxy: what real tools put into the kernel is read, judged, and of kube-proxy removed alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from podplane.kernel import legacy_iptables
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.nft.others import Tables
from podplane.machine import firewall_remedies, firewalls, kube_proxy
from podplane.model.config import NetworkConfig
from podplane.routes.table import BY_NAME
from tests.kernel.lives import until
from tests.kernel.test_foreign import run
from tests.plans import node

pytestmark = pytest.mark.kernel
CONFIG = NetworkConfig(("10.244.0.0/16",), uplink="eth0", backend="vxlan")
OWN = frozenset({("inet", "podplane-policy")})
NFT = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
IPTABLES = pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="iptables is not installed")
LEGACY = pytest.mark.skipif(shutil.which("iptables-legacy") is None, reason="iptables is not installed")
ACCEPTS = "iptables-nft -A FORWARD -s 10.244.0.0/16 -j ACCEPT; iptables-nft -A FORWARD -d 10.244.0.0/16 -j ACCEPT"
FIREWALLD = """nft -f - <<'END'
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        %s
        jump zones
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        jump zones
        reject with icmpx admin-prohibited
    }
    chain zones {%s goto zone_public; }
    chain zone_trusted { accept; }
    chain zone_public {
        jump public_allow
        meta l4proto { icmp, ipv6-icmp } accept
        reject with icmpx admin-prohibited
    }
    chain public_allow { tcp dport 22 accept; %s }
    chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept; }
}
END
"""
"""As firewalld 1.3 has it: nothing but its last rules refuses, and a set without a name comes first."""
UPLINKS = "--zone=$(firewall-cmd --get-zone-of-interface=eth0)"
TRUSTED = (
    "oifname cbr0 jump zone_trusted;",
    "ip saddr 10.244.0.0/16 goto zone_trusted; iifname cbr0 goto zone_trusted;",
    "udp dport 4789 accept;",
)
FW = "nft add table inet fw; nft 'add chain inet fw f { type filter hook forward priority 0; policy drop; }'"
UFW = """
iptables-nft -P FORWARD DROP
iptables-nft -N ufw-before-forward
iptables-nft -A FORWARD -j ufw-before-forward
iptables-nft -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
"""
UFW_INPUT = """
iptables-nft -P INPUT DROP
iptables-nft -N ufw-not-local
iptables-nft -A INPUT -m conntrack --ctstate INVALID -j DROP
iptables-nft -A INPUT -j ufw-not-local
iptables-nft -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
iptables-nft -A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
iptables-nft -A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG
iptables-nft -A ufw-not-local -j DROP
iptables-nft -A INPUT -s 10.244.0.0/16 -j ACCEPT
iptables-nft -A INPUT -p udp -m udp --dport 4789 -j ACCEPT
"""
TYPES = """nft -f - <<'END'
table inet fw {
    chain f { type filter hook forward priority 0; policy drop; fib daddr type local drop; fib daddr type != local accept; }
    chain i { type filter hook input priority 0; policy drop; fib daddr type != local drop; fib daddr . iif type local accept; }
}
END
"""
LEGACY_DROP = "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P INPUT DROP; iptables-legacy -t nat -N KUBE-SERVICES"


def said(script: str, config: NetworkConfig = CONFIG) -> list[str]:
    """The lines about firewalls after these commands."""
    if script:
        run(script)
    wanted = tuple(firewalls.ways(node(1, (4,)), [node(2, (4,))], config, ["10.96.0.10"]))
    here = CurrentNamespace()
    with Tables(here) as tables:
        found = firewalls.suspects(tables, OWN, wanted)
    return firewall_remedies.sentences(found, legacy_iptables.read(here), config)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("iptables-nft -P FORWARD DROP", "chain FORWARD of table ip filter (policy drop) drops", marks=IPTABLES),
        pytest.param(UFW, "chain FORWARD of table ip filter (policy drop) drops", marks=IPTABLES, id="ufw"),
        pytest.param(f"iptables-nft -P FORWARD DROP; {ACCEPTS}", None, marks=IPTABLES, id="let through"),
        pytest.param("iptables-nft -A FORWARD -i docker0 -j DROP", None, marks=IPTABLES, id="another link's"),
        pytest.param("iptables-nft -A FORWARD -j REJECT", "of table ip filter drops", marks=IPTABLES, id="rejects"),
        pytest.param("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -j NFQUEUE", None, marks=IPTABLES),
        pytest.param("iptables-nft -A FORWARD -m comment --comment no -j DROP", "drops", marks=IPTABLES, id="commented"),
        pytest.param(
            "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m addrtype --src-type UNICAST -j ACCEPT",
            "may drop",
            marks=IPTABLES,
        ),
        pytest.param(
            "iptables-nft -P INPUT DROP",
            "from pods to the name server of this node and of vxlan from other nodes (UDP port 4789): iptables -I INPUT -s 10",
            marks=IPTABLES,
            id="input",
        ),
        pytest.param("ip6tables-nft -P FORWARD DROP", None, marks=IPTABLES, id="another IP version"),
        pytest.param(UFW_INPUT, None, marks=IPTABLES, id="ufw that lets in"),
        pytest.param("iptables-nft -A FORWARD -m state --state NEW -j REJECT", "of table ip filter drops", marks=IPTABLES),
        pytest.param(
            "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT; "
            "iptables-nft -A FORWARD -d 10.244.0.0/16 -j ACCEPT",
            "drops packets from pods to other nodes: ",
            marks=IPTABLES,
        ),
        pytest.param("iptables-nft -A INPUT -m addrtype ! --dst-type LOCAL -j DROP", None, marks=IPTABLES),
        pytest.param("iptables-nft -A INPUT -m addrtype --dst-type LOCAL -j DROP", "drops", marks=IPTABLES),
        pytest.param("iptables-nft -A FORWARD -m addrtype ! --dst-type LOCAL -j DROP", "drops", marks=IPTABLES),
        pytest.param(TYPES, None, marks=NFT, id="types of destinations"),
        pytest.param(FIREWALLD % TRUSTED, None, marks=NFT, id="firewalld that trusts pods"),
        pytest.param(FW + "; nft 'add table inet fw { flags dormant; }'", None, marks=NFT, id="dormant"),
        pytest.param(FW, "chain f of table inet fw (policy drop) drops", marks=NFT, id="not dormant"),
        pytest.param(
            "nft add table inet podplane-policy; nft 'add chain inet podplane-policy f { type filter hook forward priority 0; "
            "policy drop; }'",
            None,
            marks=NFT,
            id="podplane's own",
        ),
    ],
)
def test_a_firewall_that_drops_packets_of_pods_is_named(script: str, expected: str | None) -> None:
    lines = said(script)
    assert len(lines) == (expected is not None), lines
    assert expected is None or expected in lines[0]


GRE = msgspec.structs.replace(CONFIG, backend="gre")


@pytest.mark.parametrize(
    ("script", "config"),
    [
        pytest.param("iptables-nft -P FORWARD DROP", CONFIG, marks=IPTABLES),
        pytest.param("iptables-nft -P INPUT DROP", CONFIG, marks=IPTABLES),
        pytest.param("iptables-nft -P INPUT DROP", GRE, marks=IPTABLES),
        pytest.param(FW, CONFIG, marks=NFT),
        pytest.param(FW.replace(" fw", " filter").replace("inet", "ip"), CONFIG, marks=NFT),
        pytest.param(FW.replace("forward", "input"), CONFIG, marks=NFT),
        pytest.param(FW.replace("forward", "input"), GRE, marks=NFT),
    ],
)
def test_what_is_said_to_do_helps(script: str, config: NetworkConfig) -> None:
    (line,) = said(script, config)
    commands = line.partition("other nodes")[2].partition(": ")[2].partition(", or, with ufw")[0]
    assert said(commands.replace("iptables", "iptables-nft"), config) == []


@NFT
def test_of_firewalld_both_hooks_are_named_with_its_own_commands() -> None:
    forward, to_node = said(FIREWALLD % ("", "", ""))
    trust = "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 --add-interface=cbr0"
    to_pods = "firewall-cmd --permanent --policy=to-pods"
    assert forward == (
        "chain filter_FORWARD of table inet firewalld may drop packets between pods of this node, to pods of other nodes, "
        f"from pods of other nodes, from pods to other nodes and from other nodes to pods: {trust}; "
        "firewall-cmd --permanent --new-policy=to-pods; "
        f"{to_pods} --add-ingress-zone=ANY; {to_pods} --add-egress-zone=trusted; {to_pods} --set-target=ACCEPT; "
        "firewall-cmd --reload"
    )
    assert to_node.endswith(
        "from pods to the name server of this node and of vxlan from other nodes (UDP port 4789): "
        f"{trust}; firewall-cmd --permanent {UPLINKS} --add-port=4789/udp; firewall-cmd --reload"
    )
    (only,) = said(f"nft delete table inet firewalld; {FIREWALLD % (*TRUSTED[:2], '')}")
    assert only.endswith(f"(UDP port 4789): firewall-cmd --permanent {UPLINKS} --add-port=4789/udp; firewall-cmd --reload")
    (only,) = said(f"nft delete table inet firewalld; {FIREWALLD % ('', *TRUSTED[1:])}")
    assert "may drop packets from other nodes to pods: " in only


@LEGACY
def test_of_legacy_iptables_policies_and_chains_are_read(tmp_path: Path) -> None:
    assert legacy_iptables.read(CurrentNamespace()) == []
    os.environ["XTABLES_LOCKFILE"] = str(tmp_path / "lock")
    done = subprocess.run(["sh", "-ec", LEGACY_DROP], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this kernel has no legacy iptables: {done.stderr.strip()}")
    if not all(os.access(one.names, os.R_OK) for one in legacy_iptables.FAMILIES):
        pytest.skip("here the names of legacy iptables' tables are for the machine's root alone")
    found = {(one.version, one.name): one for one in legacy_iptables.read(CurrentNamespace())}
    assert found[4, "filter"].dropping == {"forward"} and found[6, "filter"].dropping == {"input"}
    assert "KUBE-SERVICES" in found[4, "nat"].chains
    lines = said("")
    assert [line.partition(",")[0] for line in lines] == ["iptables-legacy's table filter", "ip6tables-legacy's table filter"]
    with Tables(CurrentNamespace()) as tables:
        left = kube_proxy.left(tables, found.values())
    assert not left.can_be_removed and str(left) == "1 chain of the legacy iptables table nat (IPv4)"


def test_a_firewall_of_very_many_rules_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewalls, "MOST_RULES", 1)
    rules = "nft add table ip a; nft 'add chain ip a f { type filter hook forward priority 0; }'; nft add rule ip a f counter"
    assert said(rules) == []
    with pytest.raises(firewalls.TooManyError):
        said("nft add rule ip a f counter")
    monkeypatch.setattr(firewalls, "MOST_RULES", 100)
    assert said("") == []
    monkeypatch.setattr(firewalls, "MOST_VISITS", 3)
    with pytest.raises(firewalls.TooManyError):
        said("")


OF_OTHERS = """
iptables-nft -A FORWARD -s 192.0.2.1 -j ACCEPT
iptables-nft -t nat -A PREROUTING -p tcp --dport 99 -j DNAT --to 192.0.2.7
iptables-nft -t nat -A OUTPUT -d 192.0.2.3 -j ACCEPT
iptables-nft -N KUBE-FIREWALL
iptables-nft -A OUTPUT -j KUBE-FIREWALL
iptables-nft -A KUBE-FIREWALL -s 192.0.2.2 -j DROP
iptables-nft -t mangle -N KUBE-KUBELET-CANARY
nft add table ip kube-proxy-of-mine
nft add chain ip kube-proxy-of-mine KUBE-SERVICES
"""
OF_PROXY = """
for t in nat filter; do
    iptables-nft -t $t -N KUBE-SERVICES; iptables-nft -t $t -N KUBE-NODEPORTS
    iptables-nft -t $t -I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
done
iptables-nft -t nat -I PREROUTING -j KUBE-SERVICES
iptables-nft -t nat -N KUBE-SVC-1; iptables-nft -t nat -N KUBE-SEP-1; iptables-nft -t mangle -N KUBE-PROXY-CANARY
iptables-nft -t nat -A KUBE-SERVICES -d 10.96.0.1 -p tcp --dport 443 -j KUBE-SVC-1
iptables-nft -t nat -A KUBE-SVC-1 -j KUBE-SEP-1
iptables-nft -t nat -A KUBE-SEP-1 -p tcp -j DNAT --to-destination 192.168.1.1:6443
iptables-nft -I FORWARD -j KUBE-SERVICES
nft add table ip kube-proxy
nft add chain ip kube-proxy services
nft 'add chain ip kube-proxy nat { type nat hook prerouting priority dstnat; }'
nft add rule ip kube-proxy nat jump services
nft add table ip6 kube-proxy
"""


@IPTABLES
@NFT
def test_of_kube_proxy_all_is_removed_and_nothing_of_others() -> None:
    run(OF_OTHERS)
    before = run("nft list ruleset")
    run(OF_PROXY)
    with Tables(CurrentNamespace()) as tables:
        found = kube_proxy.left(tables)
        assert str(found) == "table ip kube-proxy, table ip6 kube-proxy, 7 chains of iptables (KUBE-…)"
        kube_proxy.remove(tables, found)
        again = kube_proxy.left(tables)
        assert not again
        kube_proxy.remove(tables, again)
    assert run("nft list ruleset") == before


@IPTABLES
@NFT
def test_where_others_lead_to_its_chains_nothing_is_changed() -> None:
    run(OF_PROXY)
    run("iptables-nft -t nat -N MINE; iptables-nft -t nat -A MINE -j KUBE-SVC-1")
    before = run("nft list ruleset")
    with Tables(CurrentNamespace()) as tables, pytest.raises(Exception, match="remove what another program left in nf_tables"):
        kube_proxy.remove(tables, kube_proxy.left(tables))
    assert run("nft list ruleset") == before


def test_a_kube_proxy_that_runs_is_seen(tmp_path: Path) -> None:
    assert kube_proxy.why_runs() == ""
    program = tmp_path / "kube-proxy"
    shutil.copy(shutil.which("sleep") or "", program)
    running = subprocess.Popen([program, "60"])
    comm = Path(f"/proc/{running.pid}/comm")
    try:
        until(lambda: comm.read_text() == "kube-proxy\n", "it has its name a moment after it was started")
        assert kube_proxy.why_runs() == f"process {running.pid} is a kube-proxy"
    finally:
        running.kill()
        running.wait()


def test_all_backends_have_links_that_are_looked_at() -> None:
    for name in BY_NAME:
        config = NetworkConfig(("10.244.0.0/16",), backend=name)
        found = list(firewalls.ways(node(1, (4, 6)), [node(2, (4, 6))], config))
        assert {one.what for one in found if one.hook == "forward"} == {
            "between pods of this node",
            "to pods of other nodes",
            "from pods of other nodes",
            "from pods to other nodes",
            "from other nodes to pods",
        }
        assert {one.packet.version for one in found} == {4, 6}
