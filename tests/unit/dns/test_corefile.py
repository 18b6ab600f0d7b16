"""What Corefiles of common shapes become, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from podplane.dns.config import KEY
from podplane.dns.config_text import decode
from podplane.dns.corefile import Imported, imported
from podplane.dns.corefile_text import ORDER, config_map
from podplane.dns.message import name_of

DOMAIN = name_of("cluster.local")
KUBERNETES = "kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n fallthrough in-addr.arpa ip6.arpa\n}"
USUAL = f"errors\nready\n{KUBERNETES}\nprometheus :9153\nloop\nreload\nloadbalance\n"


def found(text: str, **environment: str) -> Imported:
    result = imported(text, DOMAIN, environment)
    document = yaml.safe_load(config_map(result.config))
    assert set(result.config) <= set(ORDER)
    decode(document["data"][KEY], DOMAIN)  # whatever comes of it is a configuration
    return result


def config_of(text: str) -> dict[str, Any]:
    """All of it is taken over."""
    result = found(text)
    assert not result.notes
    return result.config


def notes_of(text: str) -> list[str]:
    return [f"{note.line}: {note.what}" for note in found(text).notes]


def main(text: str) -> str:
    """A block for all names with these lines, which begin in line 2."""
    return f".:53 {{\n{text}\nkubernetes cluster.local {{\npods insecure\n}}\nforward . /etc/resolv.conf\n}}\n"


def test_kubeadm_has_the_defaults_but_for_times() -> None:
    cache = "cache 30 {\n disable success cluster.local\n disable denial cluster.local\n}"
    text = f".:53 {{\nhealth {{\n lameduck 5s\n}}\n{USUAL}{cache}\nforward . /etc/resolv.conf {{\n max_concurrent 1000\n}}\n}}"
    assert config_of(text.replace("pods insecure", "pods insecure\n ttl 30")) == {
        "ttl": 30,
        "cache": {"maxSeconds": 30, "negativeMaxSeconds": 30},
    }


def test_eks_of_today_and_of_old_times() -> None:
    now = config_of(f".:53 {{\n{USUAL}cache 30\nforward . /etc/resolv.conf\n}}")
    old = config_of(
        f".:53 {{\n{USUAL.replace('pods insecure', 'pods insecure' + chr(10) + 'upstream')}cache 30\nproxy . /etc/resolv.conf\n}}"
    )
    assert now == old == {"cache": {"maxSeconds": 30, "negativeMaxSeconds": 30}}


def test_k3s_has_entries_in_a_file_and_files_of_users() -> None:
    text = main("hosts /etc/coredns/NodeHosts {\n ttl 60\n reload 15s\n fallthrough\n}\nimport /etc/coredns/custom/*.override")
    assert notes_of(text) == [
        "2: hosts of the file /etc/coredns/NodeHosts has no counterpart: write its lines into `hosts`",
        "3: ttl 60 of hosts has no counterpart",
        "7: import of /etc/coredns/custom/*.override has no counterpart",
    ]


def test_minikube_has_entries() -> None:
    text = main(
        "log\nhosts {\n 192.0.2.254 host.minikube.internal\n 192.0.2.254 gateway\n 2001:db8::1 gateway\n fallthrough\n}"
    )
    hosts = {"192.0.2.254": ["host.minikube.internal", "gateway"], "2001:db8::1": ["gateway"]}
    assert config_of(text) == {"hosts": hosts, "log": {"names": ["."]}}


def test_aks_has_stub_domains_and_rewrites_of_users() -> None:
    stub = "corp.example:53 other.example {\n errors\n cache 30\n forward . 10.1.1.1 10.1.1.2:5353\n}\n"
    rewrites = (
        "rewrite stop {\n name regex (.*)\\.shop\\.example\\.$ {1}.default.svc.cluster.local\n answer name (.*)\\.x {1}.y\n}"
    )
    servers = ["10.1.1.1", "10.1.1.2:5353"]
    assert config_of(main(f"cache 30\n{rewrites}") + stub) == {
        "cache": {"maxSeconds": 30, "negativeMaxSeconds": 30},
        "rewrites": [{"suffix": "shop.example", "to": "default.svc.cluster.local"}],
        "zones": {"corp.example": servers, "other.example": servers},
    }


def test_openshift_has_servers_over_tls() -> None:
    tls = "forward . tls://192.0.2.1 tls://192.0.2.2:8853 {\n tls_servername dns.example\n tls\n policy sequential\n}"
    cache = "cache 900 {\n denial 9984 30\n}"
    text = (
        f".:5353 {{\nbufsize 1232\nhealth {{\n lameduck 20s\n}}\n{USUAL.replace(':9153', '127.0.0.1:9153')}{cache}\n{tls}\n}}"
    )
    assert config_of(text) == {
        "upstreams": ["tls://192.0.2.1#dns.example", "tls://192.0.2.2:8853#dns.example"],
        "order": "sequential",
        "cache": {"maxSeconds": 900, "negativeMaxSeconds": 30},
    }


def test_nodelocal_dnscache_is_there_anyway() -> None:
    zone = "{0}:53 {{\nerrors\ncache 30\nbind 169.254.20.10\nforward . __PILLAR__CLUSTER__DNS__ {{\nforce_tcp\n}}\nprometheus :9253\n}}\n"
    text = (
        zone.format("cluster.local")
        + zone.format("ip6.arpa")
        + ".:53 {\ncache 30\nforward . __PILLAR__UPSTREAM__SERVERS__\n}\n"
    )
    result = found(text)
    assert result.config == {"cache": {"maxSeconds": 30, "negativeMaxSeconds": 30}}
    assert [note.what for note in result.notes][:4] == [
        "bind has no counterpart",
        "forward to the cluster's DNS: its names are answered on each node itself",
        "force_tcp of forward has no counterpart",
        "prometheus :9253: it is on port 9153 of each node's addresses",
    ]


@pytest.mark.parametrize(
    ("lines", "config"),
    [
        ("rewrite name old.example new.example", {"rewrites": [{"name": "old.example", "to": "new.example"}]}),
        ("rewrite continue name exact Old.Example. new.example.", {"rewrites": [{"name": "old.example", "to": "new.example"}]}),
        ("rewrite name suffix .a.example. .b.example. answer auto", {"rewrites": [{"suffix": "a.example", "to": "b.example"}]}),
        ("forward corp.example 192.0.2.1", {"zones": {"corp.example": ["192.0.2.1"]}}),
        ("forward corp.example tls://192.0.2.1", {"zones": {"corp.example": ["tls://192.0.2.1"]}}),
        ("forward 10.1.0.0/16 192.0.2.1", {"zones": {"1.10.in-addr.arpa": ["192.0.2.1"]}}),
        ("forward 2001:db8::/32 dns://192.0.2.1:53", {"zones": {"8.b.d.0.1.0.0.2.ip6.arpa": ["192.0.2.1"]}}),
        ("cache", {"cache": {"maxSeconds": 3600, "negativeMaxSeconds": 1800}}),
        (
            "cache 1h {\nserve_stale 24h\nprefetch 10 1m 10%\n}",
            {"cache": {"maxSeconds": 3600, "negativeMaxSeconds": 3600, "staleSeconds": 86400, "prefetch": True}},
        ),
        (
            "cache {\nserve_stale\ndisable denial\nsuccess 9984 60\n}",
            {"cache": {"maxSeconds": 60, "negativeMaxSeconds": 0, "staleSeconds": 3600}},
        ),
        ("log example.test corp.example", {"log": {"names": ["example.test", "corp.example"]}}),
        ("any\nautopath @kubernetes\nlocal\ncancel\nhealth :9153", {}),
    ],
)
def test_directives_with_a_counterpart(lines: str, config: dict[str, Any]) -> None:
    assert config_of(main(lines)) == config


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        ("template ANY ANY local {\nrcode NXDOMAIN\n}", "2: template has no counterpart"),
        ("rewrite type ANY HINFO", "2: rewrite type has no counterpart"),
        ("rewrite name regex (.*)-x\\.a {1}.b", "2: rewrite name regex (.*)-x\\.a has no counterpart"),
        ("rewrite name prefix a b", "2: rewrite name prefix a has no counterpart"),
        ("rewrite name a", "2: rewrite name needs two names"),
        ("rewrite name a a", "2: it is left out, because it would be refused: rewrites[0]: rewrites lead in a circle: a. → a."),
        ("rewrite stop {\nname a_b* c\n}", "3: rewrite name exact: 'a_b*' is no name"),
        ("forward corp.example https://192.0.2.1", "2: forward to https://192.0.2.1: 'https://192.0.2.1' is no IP address"),
        ("forward corp.example dns.example", "2: forward to dns.example: 'dns.example' is no IP address"),
        (
            "forward corp.example /etc/other",
            "2: forward to the servers in /etc/other has no counterpart, as /etc/resolv.conf has: machine",
        ),
        (
            "forward svc.cluster.local 192.0.2.1",
            "2: forward of svc.cluster.local.: names of the cluster's domain are answered on each node itself",
        ),
        (
            "forward corp.example 192.0.2.1 {\nexcept a.corp.example\n}",
            "3: except a.corp.example of forward has no counterpart",
        ),
        ("forward corp.example 192.0.2.1 {\npolicy best\n}", "3: policy best of forward has no counterpart"),
        ("forward .", "2: forward has no servers"),
        ("forward corp.example {$NOWHERE}", "2: forward is left out: the environment has no NOWHERE"),
        ("forward 10.0.0.0/12 192.0.2.1", "2: 10.0.0.0/12 is no whole reverse zone: write those that it has"),
        ("cache 30 corp.example", "2: cache for corp.example alone has no counterpart: there is one for all zones"),
        ("cache {\nsuccess 100\n}", "3: success 100: the size of the cache is in `bytes`, for all of it"),
        ("cache {\ndenial 9984 30 5\n}", "3: denial: the least time 5 has no counterpart"),
        ("cache {\nkeepttl\n}", "3: keepttl of cache has no counterpart"),
        ("cache {\ndisable success corp.example\n}", "3: disable success corp.example of cache has no counterpart"),
        (
            "cache {\nserve_stale 1h immediate\n}",
            "3: serve_stale immediate has no counterpart: servers are asked first, as with verify",
        ),
        ("cache soon", "2: cache for soon alone has no counterpart: there is one for all zones"),
        ("cache 3x", "2: 3x is no time"),
        (
            "cache 99999999",
            "2: it is left out, because it would be refused: cache.maxSeconds: 99999999 is no whole number from 0 to 604800",
        ),
        (
            "hosts {\n192.0.2.1 a\n}",
            "2: hosts without fallthrough has no counterpart: names without an entry are asked for elsewhere",
        ),
        ("hosts {\n192.0.2.300 a\nfallthrough\n}", "3: hosts: '192.0.2.300' does not appear to be an IPv4 or IPv6 address"),
        ("hosts {\n192.0.2.3 *.a\nfallthrough\n}", "3: hosts: '*.a' is no name"),
        ("log . {combined}", "2: the format of log has no counterpart"),
        ("log . {\nclass error\n}", "2: log of class error alone has no counterpart"),
        ("bufsize 512", "2: bufsize 512 has no counterpart: responses over UDP have 1232 bytes at most"),
        ("health :8080", "2: health :8080: it is on port 9153 of each node's addresses"),
        ("kubernetes {\npods verified\n}", "2: kubernetes for .: the cluster's domain is cluster.local."),
        ("kubernetes cluster.local {\nnamespaces a b\n}", "3: namespaces a b of kubernetes has no counterpart"),
        (
            "kubernetes cluster.local {\nfallthrough\n}",
            "3: fallthrough of the cluster's domain has no counterpart: names that it lacks do not exist",
        ),
        (
            "kubernetes cluster.local {\nttl x\n}",
            "3: it is left out, because it would be refused: ttl: 'x' is no whole number from 0 to 3600",
        ),
    ],
)
def test_what_has_no_counterpart_is_told_with_its_line(lines: str, note: str) -> None:
    assert notes_of(main(lines)) == [note]


def test_names_of_pods_are_off_where_nothing_is_said() -> None:
    assert config_of(". {\nkubernetes cluster.local\nforward . /etc/resolv.conf\n}") == {"pods": "disabled"}


def test_names_that_no_block_forwards_are_not_forwarded() -> None:
    assert config_of("cluster.local {\nkubernetes {\npods verified\n}\n}") == {"pods": "verified", "upstreams": []}
    assert "upstreams" not in found(". {\nforward . /etc/other\n}").config


def test_what_differs_from_zone_to_zone_is_told() -> None:
    zone = "{0} {{\nforward . 192.0.2.1 {{\npolicy {1}\n}}\ncache {2}\n}}\n"
    text = zone.format("a", "random", 30) + zone.format("b", "sequential", 60) + zone.format("a", "random", 30)
    assert notes_of(text) == [
        "9: the policy of forward is one for all zones: that of an earlier line counts",
        "11: the cache is one for all zones: that of an earlier line counts",
        "13: a. has two server blocks, with ports of their own: there is one",
    ]


def test_other_protocols_are_told() -> None:
    assert (
        notes_of("tls://.:853 {\nforward . 192.0.2.1\n}")[0]
        == "1: tls://.:853 has no counterpart: questions are taken over UDP and TCP"
    )


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("cache", []),
        ("kubernetes", []),
        ("log", []),
        ("forward . 192.0.2.1", ["forward to : '' is no IP address"]),
        ("hosts", ["hosts of the file  has no counterpart: write its lines into `hosts`"]),
        ("rewrite", ["rewrite  has no counterpart"]),
        ("bufsize", ["bufsize  has no counterpart: responses over UDP have 1232 bytes at most"]),
    ],
)
def test_a_word_without_letters_is_none_or_is_told(plugin: str, said: list[str]) -> None:
    without = found(f". {{\n{plugin}\n}}")
    for word, environment in (('""', {}), ("{$TIME}", {"TIME": ""})):
        result = found(f". {{\n{plugin} {word}\n}}", **environment)
        assert [note.what for note in result.notes if note not in without.notes] == said
        assert result.config == without.config or said


def test_a_variable_of_the_environment_is_taken() -> None:
    result = found(main("forward corp.example {$DNS}"), DNS="192.0.2.9")
    assert result.config == {"zones": {"corp.example": ["192.0.2.9"]}}


def test_the_text_has_every_key_on_a_line_of_its_own() -> None:
    assert config_map({}).endswith("config.yaml: |\n    # all defaults\n")
    assert config_map({"ttl": 5, "pods": "disabled"}).endswith("|\n    pods: disabled\n    ttl: 5\n")


@pytest.mark.parametrize("key", ["10.1.0.0/16:53", "dns://10.1.0.0/16", "1.10.in-addr.arpa:5353"])
def test_a_block_may_be_for_a_network(key: str) -> None:
    assert found(f"{key} {{\nforward . 192.0.2.1\n}}").config["zones"] == {"1.10.in-addr.arpa": ["192.0.2.1"]}
