"""The check's own Services on a cluster: made, and waited for. Whatever serves them there, what shows that nodes have them is that they
answer, from all of their endpoints."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from podplane.cli.check import services
from podplane.cli.check.cluster.place import SLICES, Place
from podplane.cli.check.patience import patient
from podplane.cli.check.promises import Party, Probe, family, same_family
from podplane.cli.check.questions import AGAIN_SECONDS, Answers, Ask
from podplane.cli.check.served import Made
from podplane.cli.check.services import REFUSED, SERVICES, Own
from podplane.cli.names import some
from podplane.cli.waiting import Waiting

WAIT_SECONDS, POLL_SECONDS = 20.0, 0.3
"""For all nodes to have them: service proxies write their tables from time to time."""
TURNS = 3
"""For each endpoint so many connections are made at once, to see all of them."""


def made(
    place: Place, endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]], sources: Sequence[Party], ask: Ask
) -> Made:
    """The Services, in the tables of the nodes of these parties as far as that can be waited for."""
    versions = [family(ip) for ip in endpoints[0].ips]
    wanted, slices = services.manifests(endpoints, place.namespace, versions, outside="NodePort")
    stored = [place.create("services", one) for one in wanted]
    for one in slices:
        place.create(SLICES, one)
    own = services.found(stored, endpoints, node_ips)
    return Made(own, _late(own, sources, ask), {})


def _late(own: Own, sources: Sequence[Party], ask: Ask) -> dict[str, str]:
    """The nodes that don't serve them after a while, and why; one party asks for each."""
    by_node = {party.node: party for party in reversed(sources)}
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    end, waiting, late = time.monotonic() + patient(WAIT_SECONDS), Waiting(), dict.fromkeys(by_node, "")
    while True:
        probes = [probe for node in late for probe in _probes(own, by_node[node])]
        late = _still(own, {node: by_node[node] for node in late}, seen, ask(probes, AGAIN_SECONDS))
        if not late or time.monotonic() > end:
            return late
        waiting.look(lambda: f"the Services of the check on {some(list(late))}")  # noqa: B023
        time.sleep(POLL_SECONDS)


def _probes(own: Own, source: Party) -> Iterator[Probe]:
    for name in ("spread", "sticky", "itself"):
        for vip in own.vips[name]:
            turns = TURNS * len(own.endpoints) if name == "spread" else 1
            target = f"Service {name}"
            yield from (Probe(SERVICES, source.name, target, "tcp", vip.ip, vip.port, turn=turn) for turn in range(turns))
    for vip in own.vips["nobody"]:
        yield Probe(REFUSED, source.name, "Service nobody", "tcp", vip.ip, vip.port)


def _still(own: Own, sources: Mapping[str, Party], seen: dict[tuple[str, str], set[str]], answers: Answers) -> dict[str, str]:
    """Of these nodes those that have not got them yet, and why. `seen`: which endpoints answered a party at an address so far."""
    late: dict[str, str] = {}
    node_of = {party.name: node for node, party in sources.items()}
    for probe, answer in answers.items():
        if failure := services.judge_probe(probe, answer):
            late.setdefault(node_of[probe.source], f"after {patient(WAIT_SECONDS):.0f} s {failure}")
        elif probe.target == "Service spread":
            seen[probe.source, probe.ip].add(str(answer["seen"].get("name")))
    for node, party in sources.items():
        for vip in own.vips["spread"]:
            missing = [one.name for one in own.endpoints if same_family(one.ips, vip.ip)]
            missing = [one for one in missing if one not in seen[party.name, vip.ip]]
            if missing:
                late.setdefault(node, f"Service spread leads {party.name} never to {some(missing)}")
    return late
