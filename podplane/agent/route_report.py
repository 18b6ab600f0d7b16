"""What a node's routes are, who asked for each, and through which tunnel it leads."""

from __future__ import annotations

from collections.abc import Collection

from podplane.agent.keys import PeerKey
from podplane.agent.pause import Pause
from podplane.model.answers import RouteStatus
from podplane.routes.withdrawal import UNREACHABLE
from podplane.state.ledger import Ledger
from podplane.state.network import Fdb, Neighbour, Route
from podplane.state.value import IPAddress

STEP = 500
"""So many objects are looked at between two looks at the clock."""


async def routes(ledger: Ledger, withdrawn: Collection[str] = ()) -> list[RouteStatus]:
    """Those that are wanted in the node's own namespace, by destination. It walks over all that is wanted there, with pauses. `withdrawn`
    are the names of peers whose routes are."""
    pause = Pause()
    macs: dict[tuple[str, IPAddress], str] = {}
    remotes: dict[tuple[str, str], IPAddress] = {}
    found: list[Route] = []
    for number, identity in enumerate(ledger.desired.in_namespace(""), 1):
        value = ledger.desired.get(identity)  # it may have gone during a pause
        if isinstance(value, Route):
            found.append(value)
        elif isinstance(value, Neighbour):
            macs[value.link, value.ip] = value.mac
        elif isinstance(value, Fdb) and value.remote is not None:
            remotes[value.link, value.mac] = value.remote
        if number % STEP == 0:
            await pause()
    described = []
    for number, route in enumerate(sorted(found, key=_order), 1):
        mac = macs.get((route.link, route.gateway), "") if route.gateway is not None else ""
        through = route.encap.remote if route.encap is not None else remotes.get((route.link, mac), "")
        described.append(_described(route, ledger, str(through), withdrawn))
        if number % STEP == 0:
            await pause()
    return described


def _order(route: Route) -> tuple[int, int, int]:
    network = route.destination
    return network.version, int(network.network_address), network.prefixlen


def _described(route: Route, ledger: Ledger, through: str, withdrawn: Collection[str]) -> RouteStatus:
    owners = ledger.desired.owners(route.identity)
    return RouteStatus(
        str(route.destination),
        route.kind,
        str(route.gateway or ""),
        route.link,
        through,
        [str(key) for key in owners],
        ledger.status(route.identity).value,
        [key.path for key in owners if isinstance(key, PeerKey) and key.path in withdrawn] if route.kind == UNREACHABLE else [],
    )
