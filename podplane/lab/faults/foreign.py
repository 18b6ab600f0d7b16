"""The foreign hand: what other programs on a node's machine do to podplane's objects.

Everything goes over sockets that are opened for it in the node's namespace: to the agent, these are changes of somebody else. What
there is to change is read from the kernel in the same way. Functions block for some milliseconds; each says in one line what it did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from podplane.kernel.door import Kernel
from podplane.kernel.errors import Denied
from podplane.kernel.namespace import Namespace
from podplane.kernel.nft import foreign
from podplane.kernel.nft.others import Tables
from podplane.kernel.opener import KernelOpener
from podplane.kernel.sysctl import path_of
from podplane.lab.faults.arguments import FaultError
from podplane.model.config import NetworkConfig
from podplane.state.network import Address, Link, Neighbour, Route
from podplane.state.nft import Chain
from podplane.state.operations import Operation
from podplane.state.ownership import MARK, Ownership
from podplane.state.value import Value

V = TypeVar("V", bound=Value)
T = TypeVar("T")
MOST_NAMED = 6
QUOTA_BYTES = 1 << 30
SYSCTL = "net.ipv4.ip_forward"


class Place(Protocol):
    """The machine of one node, and podplane's marks on it."""

    @property
    def name(self) -> str:
        """Of the node."""

    @property
    def namespace(self) -> Namespace:
        """Of the node."""

    @property
    def ownership(self) -> Ownership:
        """What is podplane's."""

    @property
    def config(self) -> NetworkConfig:
        """The cluster's."""

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Those that podplane sets in the node's own namespace."""


def flush_nftables(place: Place, argument: str) -> str:
    """Delete all tables but those that the kernel keeps for their owners."""
    with Tables(place.namespace) as tables:
        kept = sorted(name for _, name in tables.owned())
    foreign.flush_ruleset(place.namespace)
    but = f" but {', '.join(kept)}: the agent alone may do that" if kept else ""
    return f"On {place.name}, all nf_tables were flushed{but}."


def add_rule(place: Place, argument: str) -> str:
    """Append a rule with an expression that podplane doesn't know."""
    with _door(place) as kernel:
        chains = {f"{v.table} {v.name}": v for v in _owned(place, kernel, Chain) if v.hook is not None}
    name, chain = _chosen(place, "chain", chains, "")
    try:
        foreign.append_quota(place.namespace, chain.family, chain.table, chain.name, QUOTA_BYTES)
    except Denied:
        return f"On {place.name}, the kernel refused a rule with a quota in the chain {name}: the agent alone may add one."
    return f"On {place.name}, a rule with a quota was appended to the chain {name}."


def delete_route(place: Place, argument: str) -> str:
    """Delete a route of podplane's."""
    with _door(place) as kernel:
        routes = {str(value.destination): value for value in _owned(place, kernel, Route)}
        name, route = _chosen(place, "route to", routes, argument)
        _carry_out(kernel, Operation(route, None))
    return f"On {place.name}, the route to {name} was deleted."


def delete_link(place: Place, argument: str) -> str:
    """Delete a pod's veth pair by its end in the node."""
    with _door(place) as kernel:
        links = {_pod_of(value): value for value in _owned(place, kernel, Link) if value.kind == "veth"}
        wanted = argument if not argument or "/" in argument else f"default/{argument}"
        name, link = _chosen(place, "link of pod", links, wanted)
        _carry_out(kernel, Operation(link, None))
    return f"On {place.name}, the link {link.name} of pod {name} was deleted, and with it the pod's eth0."


def delete_neighbour(place: Place, argument: str) -> str:
    """Delete a permanent neighbour of podplane's."""
    with _door(place) as kernel:
        neighbours = {str(value.ip): value for value in _owned(place, kernel, Neighbour)}
        name, neighbour = _chosen(place, "neighbour", neighbours, argument)
        _carry_out(kernel, Operation(neighbour, None))
    return f"On {place.name}, the neighbour {name} on {neighbour.link} was deleted."


def delete_address(place: Place, argument: str) -> str:
    """Delete an address of the pods' bridge."""
    with _door(place) as kernel:
        owned = (value for value in _owned(place, kernel, Address) if value.link == place.config.bridge)
        addresses = {str(value.ip): value for value in owned}
        name, address = _chosen(place, f"address on {place.config.bridge}", addresses, argument)
        _carry_out(kernel, Operation(address, None))
    return f"On {place.name}, the address {name}/{address.prefix_length} of {address.link} was deleted."


def change_sysctl(place: Place, argument: str) -> str:
    """Set a sysctl that podplane sets to another value: 0, or 1 where podplane wants 0."""
    wanted = dict(sorted(place.sysctls.items()))
    name, value = _chosen(place, "sysctl", wanted, argument or (SYSCTL if SYSCTL in wanted else ""))
    other = "1" if value == "0" else "0"
    place.namespace.run(Path(path_of(name)).write_text, other)  # not read back: the agent may have repaired it already
    return f"On {place.name}, the sysctl {name} was changed from {value} to {other}."


def set_link(place: Place, link: str, *, up: bool) -> None:
    """Set a link of the machine up or down."""
    with _door(place) as kernel:
        value = Link(name=link, up=up)
        _carry_out(kernel, Operation(msgspec.structs.replace(value, up=not up), value))


def set_mtu(namespace: Namespace, link: str, mtu: int) -> None:
    """Have a link of a namespace take packets of so many bytes."""
    with _opened(namespace) as kernel:
        _carry_out(kernel, Operation(Link(name=link), Link(name=link, mtu=mtu)))


def _door(place: Place) -> contextlib.AbstractContextManager[Kernel]:
    """A kernel door of its own."""
    return _opened(place.namespace)


@contextlib.contextmanager
def _opened(namespace: Namespace) -> Iterator[Kernel]:
    kernel = Kernel(namespace, KernelOpener())
    try:
        yield kernel
    finally:
        kernel.close()


def _owned(place: Place, kernel: Kernel, kind: type[V]) -> list[V]:
    """Podplane's objects of a kind, in a lasting order."""
    found = kernel.read(place.ownership).values()
    return sorted((value for value in found if isinstance(value, kind)), key=lambda value: str(value.identity))


def _chosen(place: Place, what: str, candidates: Mapping[str, T], wanted: str) -> tuple[str, T]:
    """The candidate of this name, or the first one. FaultError when there is none."""
    if not candidates:
        raise FaultError(f"{place.name} has no {what} of podplane's")
    name = wanted or next(iter(candidates))
    if name not in candidates:
        names = list(candidates)
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise FaultError(f"{place.name} has no {what} {wanted}: there is {', '.join(names[:MOST_NAMED])}{more}")
    return name, candidates[name]


def _pod_of(link: Link) -> str:
    """The pod that stands in the alias of a link: `podplane pod/default/web`."""
    return link.alias.removeprefix(f"{MARK} pod/")


def _carry_out(kernel: Kernel, operation: Operation) -> None:
    try:
        report = kernel.apply([operation])
    except OSError as error:
        raise FaultError(str(error)) from None
    if report.failed:
        raise FaultError(str(report.failed[0].error))
