"""From the text of the ConfigMap to a configuration. What is wrong in it is one line that names the place: `zones.corp.example[0]: …`."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, get_args

from podplane.dns import config as c
from podplane.dns import config_tree
from podplane.dns.config import MACHINE, Cache, Config, Log, Rewrite
from podplane.dns.message import Name, is_under, text_of
from podplane.dns.rewrites import Rewrites

MAX_BYTES = 512 * 1024
MAX_CHAIN = 6
MAX_SERVERS = 256
"""Different ones: each is probed, and has sockets of its own."""
"""Rewrites that lead from one to the next; the resolver follows a few more aliases."""
LONGEST = 400
"""Characters of an error."""
WEEK, GIBIBYTE = 7 * 86400, 1 << 30
LOGGED_POD = re.compile(r"[a-z0-9-]{1,63}/([a-z0-9.-]{1,253}\*?|\*)")
Read = Callable[[Any, str], Any]
"""(value, its place) → what it means. ConfigError when it means nothing."""


class ConfigError(ValueError):
    """The configuration is not as it should be; the text says where, and what."""

    def __init__(self, place: str, what: str) -> None:
        text = f"{place}: {what}" if place else what
        super().__init__(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def of_data(data: Mapping[str, str], binary: Collection[str], domain: Name, own: Collection[str]) -> Config:
    """The configuration in a ConfigMap's `data`, for a cluster of this domain, whose name servers have the addresses `own`.

    `binary` are the keys of its `binaryData`. ConfigError when it is not as it should be.
    """
    for key in binary:
        raise ConfigError(f"binaryData.{key}", f"the configuration is text: data.{c.KEY}")
    for key in data:
        if key != c.KEY:
            raise ConfigError("data", _unknown(key, (c.KEY,)))
    return decode(data.get(c.KEY, ""), domain, own)


def decode(text: str, domain: Name, own: Collection[str] = ()) -> Config:
    """The configuration that a text has (see `of_data`). ConfigError when it is not as it should be."""
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError("", f"the configuration is longer than {MAX_BYTES} bytes")
    try:
        tree = config_tree.read(text)
    except config_tree.TreeError as error:
        raise ConfigError(f"line {error.line}" if error.line else "", str(error)) from None
    return of_tree(tree, domain, own)


def of_tree(tree: Any, domain: Name, own: Collection[str] = ()) -> Config:
    """The configuration that a document is, once read. ConfigError when it is not as it should be."""
    found = Config(**{} if tree is None else _keys(_table(domain, own))(tree, ""))
    _check_rewrites(found.rewrites)
    count = len({server for group in (found.upstreams, *found.zones.values()) for server in group})
    if count > MAX_SERVERS:
        raise ConfigError("", f"there are {count} servers in it: at most {MAX_SERVERS} can be")
    return found


# Readers.


def _table(domain: Name, own: Collection[str]) -> dict[str, Read]:
    """The keys of a configuration."""
    servers = _upstreams(own)
    return {
        "pods": _one_of(*get_args(c.PodNames)),
        "ttl": _whole(0, 3600),
        "searchPath": _switch,
        "upstreams": servers,
        "order": _one_of(*get_args(c.Order)),
        "zones": _map(_zone(domain), _not_empty(servers)),
        "hosts": _map(_ip, _not_empty(_list(_name))),
        "rewrites": _list(_rewrite),
        "cache": _struct(Cache, CACHE),
        "log": _struct(Log, LOG),
    }


def _keys(table: Mapping[str, Read]) -> Read:
    """A mapping with these keys; one without a value has its default. The result is by names of attributes."""

    def read(value: Any, place: str) -> dict[str, Any]:
        found = {}
        for key, inner in _items(value, place):
            if key not in table:
                raise ConfigError(place, _unknown(key, table))
            if inner is not None:
                found[_attribute(key)] = table[key](inner, f"{place}.{key}" if place else key)
        return found

    return read


def _attribute(key: str) -> str:
    return re.sub("([A-Z])", r"_\1", key).lower()


def _unknown(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key[:100], known, 1)
    are = "there is only" if len(known) == 1 else "there are"
    hint = f"is it {close[0]!r}?" if close else f"{are} {', '.join(known)}"
    return f"there is no key {key!r}; {hint}"


def _items(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ConfigError(place, f"there should be keys with values, not {_kind(value)}")
    for key, inner in value.items():
        if not isinstance(key, str):
            raise ConfigError(place, f"the key {key!r} should be text, not {_kind(key)}")
        yield key, inner


def _kind(value: Any) -> str:
    kinds = {
        str: "text",
        bool: "a truth value",
        int: "a number",
        list: "a list",
        dict: "keys with values",
        type(None): "nothing",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


def _map(key: Read, read: Read) -> Read:
    """A mapping whose keys have a meaning, each one once."""

    def read_all(value: Any, place: str) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for text, inner in _items(value, place):
            where = f"{place}.{text}"
            meaning = key(text, where)
            if meaning in found:
                raise ConfigError(where, "this is there twice")
            found[meaning] = read(inner, where)
        return found

    return read_all


def _list(read: Read) -> Read:
    """A list of things that are there once each."""

    def read_all(value: Any, place: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ConfigError(place, f"there should be a list, not {_kind(value)}")
        found: dict[Any, None] = {}
        for number, inner in enumerate(value):
            meaning = read(inner, f"{place}[{number}]")
            if meaning in found:
                raise ConfigError(f"{place}[{number}]", "this is there twice")
            found[meaning] = None
        return tuple(found)

    return read_all


def _not_empty(read: Read) -> Read:
    def read_some(value: Any, place: str) -> Any:
        found = read(value, place)
        if not found:
            raise ConfigError(place, "the list is empty")
        return found

    return read_some


def _struct(kind: type, table: Mapping[str, Read]) -> Read:
    return lambda value, place: kind(**_keys(table)(value, place))


def _one_of(*words: str) -> Read:
    def read(value: Any, place: str) -> str:
        if value not in words:
            raise ConfigError(place, f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return read


def _whole(lowest: int, highest: int) -> Read:
    def read(value: Any, place: str) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ConfigError(place, f"{value!r} is no whole number from {lowest} to {highest}")
        return value

    return read


def _switch(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(place, f"{value!r} is neither true nor false")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(place, f"there should be text, not {_kind(value)}")
    return value


def _by(parse: Callable[[str], Any]) -> Read:
    """Text that a function understands, which raises ValueError with a sentence when it does not."""

    def read(value: Any, place: str) -> Any:
        try:
            return parse(_text(value, place))
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(place, str(error)) from None

    return read


_name = _by(c.domain_name)
_server = _by(c.upstream_of)


def _upstreams(own: Collection[str]) -> Read:
    def read(value: Any, place: str) -> Any:
        if value == MACHINE:
            return MACHINE
        server = _server(value, place)
        if server.ip in own:
            raise ConfigError(place, f"{server.ip} is this name server itself")
        return server

    return _list(read)


def _zone(domain: Name) -> Read:
    def read(value: Any, place: str) -> Name:
        if value == ".":
            raise ConfigError(place, "the servers of all other names are `upstreams`")
        name: Name = _name(value, place)
        if is_under(name, domain):
            raise ConfigError(place, f"names of the cluster's domain {text_of(domain)} are answered here")
        return name

    return read


def _ip(value: Any, place: str) -> str:
    try:
        ip = ipaddress.ip_address(value)
    except ValueError:
        raise ConfigError(place, f"{value!r} is no IP address") from None
    if getattr(ip, "scope_id", None) is not None:
        raise ConfigError(place, f"{value!r} is an address of one machine's interface")
    return str(ip)


def _rewrite(value: Any, place: str) -> Rewrite:
    found = _keys({"name": _name, "suffix": _name, "to": _name})(value, place)
    if ("name" in found) == ("suffix" in found):
        raise ConfigError(place, "there should be either `name` or `suffix`")
    if "to" not in found:
        raise ConfigError(place, "`to` is missing")
    return Rewrite(found.get("name") or found["suffix"], found["to"], "suffix" in found)


def _check_rewrites(rules: tuple[Rewrite, ...]) -> None:
    """ConfigError when a rule can never be used, or leads in a circle."""
    rewrites = Rewrites(rules)
    for number, rule in enumerate(rules):
        place, name = f"rewrites[{number}]", (b"*", *rule.name) if rule.suffix else rule.name
        first = rewrites.number_of(name)
        if first != number:
            raise ConfigError(place, f"it is never used: rewrites[{first}] is about {text_of(rule.name)} already")
        chain = [name]
        while (found := rewrites.number_of(chain[-1])) is not None:
            chain.append(rules[found].of(chain[-1]) or ())
            if chain[-1] in chain[:-1]:
                raise ConfigError(place, f"rewrites lead in a circle: {' → '.join(map(text_of, chain))}")
            if len(chain) > MAX_CHAIN:
                raise ConfigError(place, f"rewrites lead on and on: {' → '.join(map(text_of, chain))}")


def _logged_pod(text: str) -> str:
    if not LOGGED_POD.fullmatch(text):
        raise ValueError(f"{text!r} is no namespace/name of a pod (a * at the end stands for all that begin so)")
    return text


def _logged_name(text: str) -> Name:
    return () if text == "." else c.domain_name(text)


CACHE: dict[str, Read] = {
    "maxSeconds": _whole(0, WEEK),
    "negativeMaxSeconds": _whole(0, WEEK),
    "staleSeconds": _whole(0, WEEK),
    "bytes": _whole(0, GIBIBYTE),
    "prefetch": _switch,
}
LOG: dict[str, Read] = {"pods": _list(_by(_logged_pod)), "names": _list(_by(_logged_name))}
