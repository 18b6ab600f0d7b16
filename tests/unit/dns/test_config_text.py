"""The text of a configuration: what it means, and the one line that says what is wrong in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.dns.config import KEY, MACHINE, Cache, Config, Log, Rewrite, Upstream, domain_name
from podplane.dns.config_text import ConfigError, decode, of_data
from podplane.dns.message import name_of

DOMAIN = name_of("cluster.local")
OWN = ("10.96.0.10",)
EVERYTHING = """
pods: verified
ttl: 30
searchPath: false
upstreams: [machine, 192.0.2.1, "[2001:db8::1]:5353", tls://192.0.2.2#dns.example]
order: sequential
zones:
  corp.example: [192.0.2.53]
  no: [machine]
  10.in-addr.arpa.: [192.0.2.53:5353]
hosts:
  192.0.2.7: [db.corp.example, DB.example.]
  1:2:3:4:5:6:7:8: [six.example]
  0.0.0.0: [ads.example]
rewrites:
  - {name: old.example, to: web.default.svc.cluster.local}
  - {suffix: gone.example, to: new.example}
cache: {maxSeconds: 60, negativeMaxSeconds: 5, staleSeconds: 0, bytes: 1048576, prefetch: false}
log: {pods: [default/web-1, kube-system/*], names: [example.test, .]}
"""


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        decode(text, DOMAIN, OWN)
    return str(refused.value)


def test_every_key_has_its_meaning() -> None:
    corp = Upstream("192.0.2.53")
    assert decode(EVERYTHING, DOMAIN, OWN) == Config(
        pods="verified",
        ttl=30,
        search_path=False,
        upstreams=(
            MACHINE,
            Upstream("192.0.2.1"),
            Upstream("2001:db8::1", 5353),
            Upstream("192.0.2.2", 853, True, "dns.example"),
        ),
        order="sequential",
        zones={
            domain_name("corp.example"): (corp,),
            (b"no",): (MACHINE,),
            domain_name("10.in-addr.arpa"): (Upstream("192.0.2.53", 5353),),
        },
        hosts={
            "192.0.2.7": (domain_name("db.corp.example"), domain_name("db.example")),
            "1:2:3:4:5:6:7:8": (domain_name("six.example"),),
            "0.0.0.0": (domain_name("ads.example"),),
        },
        rewrites=(
            Rewrite(domain_name("old.example"), domain_name("web.default.svc.cluster.local")),
            Rewrite(domain_name("gone.example"), domain_name("new.example"), suffix=True),
        ),
        cache=Cache(max_seconds=60, negative_max_seconds=5, stale_seconds=0, bytes=1 << 20, prefetch=False),
        log=Log(pods=("default/web-1", "kube-system/*"), names=(domain_name("example.test"), ())),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "ttl:\nhosts:\ncache:\n  bytes:\n"])
def test_what_is_not_there_has_its_default(text: str) -> None:
    assert decode(text, DOMAIN) == Config()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tttl: 5", "there is no key 'tttl'; is it 'ttl'?"),
        ("search_path: true", "there is no key 'search_path'; is it 'searchPath'?"),
        (
            "cache: {max: 5}",
            "cache: there is no key 'max'; there are maxSeconds, negativeMaxSeconds, staleSeconds, bytes, prefetch",
        ),
        ("[]", "there should be keys with values, not a list"),
        ("5", "there should be keys with values, not a number"),
        ("1: 2", "the key 1 should be text, not a number"),
        ("ttl: '5'", "ttl: '5' is no whole number from 0 to 3600"),
        ("ttl: true", "ttl: True is no whole number from 0 to 3600"),
        ("ttl: 3601", "ttl: 3601 is no whole number from 0 to 3600"),
        ("ttl: 5.5", "ttl: '5.5' is no whole number from 0 to 3600"),
        ("pods: off", "pods: 'off' is none of insecure, verified, disabled"),
        ("pods: [verified]", "pods: ['verified'] is none of insecure, verified, disabled"),
        ("order: round_robin", "order: 'round_robin' is none of parallel, sequential, random"),
        ("searchPath: yes", "searchPath: 'yes' is neither true nor false"),
        ("upstreams: 192.0.2.1", "upstreams: there should be a list, not text"),
        ("upstreams: [192.0.2.1, 5]", "upstreams[1]: there should be text, not a number"),
        ("upstreams: [192.0.2.256]", "upstreams[0]: '192.0.2.256' is no IP address"),
        ("upstreams: [192.0.2.1, '192.0.2.1:53']", "upstreams[1]: this is there twice"),
        ("upstreams: [10.96.0.10]", "upstreams[0]: 10.96.0.10 is this name server itself"),
        ("zones: {corp.example: [10.96.0.10]}", "zones.corp.example[0]: 10.96.0.10 is this name server itself"),
        ("zones: {corp.example: [x]}", "zones.corp.example[0]: 'x' is no IP address"),
        ("zones: {corp.example: []}", "zones.corp.example: the list is empty"),
        ("zones: {corp.example: }", "zones.corp.example: there should be a list, not nothing"),
        ("zones: {corp.example: [192.0.2.1], Corp.Example.: [192.0.2.1]}", "zones.Corp.Example.: this is there twice"),
        ("zones: {.: [192.0.2.1]}", "zones..: the servers of all other names are `upstreams`"),
        ("zones: {a..b: [192.0.2.1]}", "zones.a..b: 'a..b' is no name"),
        (
            "zones: {svc.Cluster.local: [192.0.2.1]}",
            "zones.svc.Cluster.local: names of the cluster's domain cluster.local. are answered here",
        ),
        ("zones: [corp.example]", "zones: there should be keys with values, not a list"),
        ("hosts: {db.example: [192.0.2.1]}", "hosts.db.example: 'db.example' is no IP address"),
        ("hosts: {'fe80::1%eth0': [a.example]}", "hosts.fe80::1%eth0: 'fe80::1%eth0' is an address of one machine's interface"),
        ("hosts: {192.0.2.1: ['*.example']}", "hosts.192.0.2.1[0]: '*.example' is no name"),
        ("hosts: {192.0.2.1: db.example}", "hosts.192.0.2.1: there should be a list, not text"),
        ("hosts: {'::1': [a], '0:0::1': [b]}", "hosts.0:0::1: this is there twice"),
        ("rewrites: [{name: a.example}]", "rewrites[0]: `to` is missing"),
        ("rewrites: [{to: a.example}]", "rewrites[0]: there should be either `name` or `suffix`"),
        ("rewrites: [{name: a, suffix: b, to: c}]", "rewrites[0]: there should be either `name` or `suffix`"),
        ("rewrites: [{name: a b, to: c}]", "rewrites[0].name: 'a b' is no name"),
        ("rewrites: [{name: a, to: b}, {name: a, to: c}]", "rewrites[1]: it is never used: rewrites[0] is about a. already"),
        (
            "rewrites: [{suffix: a, to: b}, {name: x.a, to: c}]",
            "rewrites[1]: it is never used: rewrites[0] is about x.a. already",
        ),
        ("rewrites: [{name: a, to: a}]", "rewrites[0]: rewrites lead in a circle: a. → a."),
        ("rewrites: [{name: a, to: b}, {name: b, to: a}]", "rewrites[0]: rewrites lead in a circle: a. → b. → a."),
        ("rewrites: [{suffix: a, to: b}, {suffix: b, to: a}]", "rewrites[0]: rewrites lead in a circle: *.a. → *.b. → *.a."),
        (
            "log: {pods: [web-1]}",
            "log.pods[0]: 'web-1' is no namespace/name of a pod (a * at the end stands for all that begin so)",
        ),
        (
            f"zones: {{a.test: {[f'192.0.2.{i}' for i in range(200)]}}}\nupstreams: {[f'192.0.3.{i}' for i in range(57)]}",
            "there are 257 servers in it: at most 256 can be",
        ),
        ("log: {names: ['a b']}", "log.names[0]: 'a b' is no name"),
        ("ttl: 5\nttl: 6", "line 2: the key 'ttl' is there twice"),
        ("a: &x [1]\nb: *x", "the configuration is YAML with aliases: write them out"),
        ("[" * 9, "the configuration is nested deeper than 8 levels"),
        ("- " * 100_000, "the configuration is nested deeper than 8 levels"),
        ("hosts: [" + "a," * 50_000 + "]", "the configuration has too many values"),
        ("#" * 600_000, "the configuration is longer than 524288 bytes"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(text: str, line: str) -> None:
    assert error_of(text) == line


def test_a_suffix_that_grows_leads_on_and_on() -> None:
    line = error_of("rewrites: [{suffix: example, to: new.example}]")
    assert line.startswith("rewrites[0]: rewrites lead on and on: *.example. → *.new.example. → *.new.new.example. → ")


def test_a_name_below_a_suffix_may_have_a_rule_of_its_own_before_it() -> None:
    config = decode("rewrites: [{name: x.a, to: c}, {suffix: a, to: b}]", DOMAIN)
    assert len(config.rewrites) == 2


@pytest.mark.parametrize(
    "text", ["{", "\t", "a: [", "!!python/none", "a: !!binary x", "? {a: b}\n: c", "--- a\n--- b", "\x00", "%YAML 9"]
)
def test_what_is_no_yaml_is_told(text: str) -> None:
    line = error_of(text)
    assert "\n" not in line and len(line) <= 401


def test_a_long_error_is_cut() -> None:
    line = error_of(f"pods: {'x' * 1000}")
    assert len(line) == 401
    assert line.endswith("x…")


def test_a_config_map_has_one_key() -> None:
    assert of_data({KEY: "ttl: 7"}, (), DOMAIN, OWN) == Config(ttl=7)
    assert of_data({}, (), DOMAIN, OWN) == Config()


@pytest.mark.parametrize(
    ("data", "binary", "line"),
    [
        ({KEY: "", "Corefile": ""}, (), "data: there is no key 'Corefile'; there is only config.yaml"),
        ({"config.yml": ""}, (), "data: there is no key 'config.yml'; is it 'config.yaml'?"),
        ({}, (KEY,), "binaryData.config.yaml: the configuration is text: data.config.yaml"),
    ],
)
def test_another_key_of_the_config_map_is_told(data: dict[str, str], binary: tuple[str, ...], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        of_data(data, binary, DOMAIN, OWN)
    assert str(refused.value) == line


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5000)
    | st.sampled_from(["machine", "192.0.2.1", "a.example", "::1", "verified", "a/b", "", "."]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "suffix", "to", "192.0.2.1", "a.example", "pods", "names", "bytes"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
KEYS = ["pods", "ttl", "searchPath", "upstreams", "order", "zones", "hosts", "rewrites", "cache", "log", "other"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_whatever_is_written_is_taken_or_told_in_one_line(tree: dict[str, object]) -> None:
    import yaml

    try:
        config = decode(yaml.safe_dump(tree), DOMAIN, OWN)
    except ConfigError as error:
        assert re.fullmatch(r"[^\n]+", str(error))
    else:
        assert "other" not in tree
        for key in ("zones", "hosts", "rewrites", "upstreams"):
            if tree.get(key) is not None:
                assert len(getattr(config, key)) == len(tree[key])  # type: ignore[arg-type]  # nothing of it is left out
