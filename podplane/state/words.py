"""A kernel object in words, short enough for one line: what it is and how the kernel finds it, not all that it holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

import msgspec

from podplane.state.network import Address, Fdb, Link, Neighbour, Proxy, Qdisc, Redirect, Route, SoftwareChecksum, Sysctl
from podplane.state.nft import Element
from podplane.state.nft_members import Members
from podplane.state.value import Identity, Value


def in_words(identity: Identity, value: Value | None = None) -> str:
    """The object; `value` is how it is wanted or known, where there is one: words come out nicer with it."""
    netns = f" in {identity[1]}" if identity[1] else ""
    return (_of_value(value) or _of_identity(identity)) + netns


def difference(wanted: Value, found: Value, matches: Callable[[Value, Value], bool]) -> str:
    """In what a found object is not as it is wanted: `has mtu 1400, not 1500`. `matches` says whether a value fulfils what is wanted."""
    if type(wanted) is not type(found):
        return f"is another kind of object: {type(found).__name__.lower()}"
    names = [
        name
        for name in wanted.__struct_fields__
        if not matches(wanted, msgspec.structs.replace(wanted, **{name: getattr(found, name)}))
    ]
    said = (_differs(name.replace("_", " "), getattr(found, name), getattr(wanted, name)) for name in names)
    return f"has {', and '.join(said)}" if names else "is not as planned"


def _differs(name: str, found: object, wanted: object) -> str:
    if isinstance(wanted, tuple | msgspec.Struct):  # of a chain's rules no line would be short enough
        return f"other {name}"
    return f"{name} {_said(found)}, not {_said(wanted)}"


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if value not in (None, "") else "none"


def _of_value(value: Value | None) -> str:
    match value:
        case Link():
            return f"link {value.name}"
        case Address():
            return f"address {value.ip}/{value.prefix_length} on {value.link}"
        case Route():
            via = f" via {value.gateway}" if value.gateway else ""
            return f"route {value.destination}{via}" + (f" on {value.link}" if value.link else "")
        case Neighbour():
            return f"neighbour {value.ip} on {value.link}"
        case Proxy():
            return f"neighbour proxy {value.ip} on {value.link}"
        case Fdb():
            return f"fdb entry {value.mac} on {value.link}"
        case Qdisc():
            return f"qdisc {value.kind} on {value.link}"
        case Redirect():
            return f"filter that redirects what comes in by {value.link}"
        case SoftwareChecksum():
            return f"checksums in software on {value.link}"
        case Sysctl():
            return f"sysctl {value.name} = {value.value}"
        case Element():
            return f"nft element {value.family} {value.table} {value.set} {{ {_joined(value.key, ' . ')} }}"
        case Members():
            return f"{len(value)} nft elements {value.family} {value.table} {value.set}"
    return ""


def _of_identity(identity: Identity) -> str:
    return f"{str(identity[0]).lower()} {_joined(identity[2:], ' ')}"


def _joined(parts: Iterable[Hashable], separator: str) -> str:
    return separator.join(str(_joined(part, " . ") if isinstance(part, tuple) else part) for part in parts)
