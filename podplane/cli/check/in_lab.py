"""A check of a lab: who takes part, and what depends on a lab's own agents and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from podplane.cli.check import lookups, policies, served, tunnels, users
from podplane.cli.check.parties import Gathered
from podplane.cli.check.policed import Around, Way, every_way, some_ways
from podplane.cli.check.promises import HasTunnel, Largest, Party, Verdict
from podplane.cli.check.questions import AGAIN_SECONDS, DENIED_SECONDS, PROBE_SECONDS, Ask
from podplane.cli.check.scene import Found
from podplane.cli.check.services import Own
from podplane.cli.policy.cluster import Cluster, cluster
from podplane.dns.resolv_conf import ResolvConf
from podplane.lab import underlay
from podplane.lab.spec import LabSpec
from podplane.runtime.probe import USUAL_PORT

OUTSIDE_PORT = 8080


class InLab:
    """`scene.Scene`."""

    unproved: Mapping[str, str] = {}
    stalled_seconds = 5.0

    def __init__(self, client: Any, settings: LabSpec) -> None:
        self._client, self._settings = client, settings
        self.site = served.site(client, settings)
        ips = tuple(map(str, underlay.outside_ips(settings.plan())))
        self.outside = Party(underlay.OUTSIDE, "outside", "", ips, OUTSIDE_PORT)

    def ways(self) -> tuple[HasTunnel, Largest]:
        """As the agents plan them."""
        return tunnels.between_nodes(self._client, map(str, self._settings.plan().links()))

    def made(
        self, endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]], sources: Sequence[Party], ask: Ask
    ) -> served.Made:
        """The agents say when they have them."""
        return served.made(self._client, endpoints, node_ips)

    def outsiders(self, parties: Mapping[str, Party], nodes: Sequence[Party]) -> Iterable[tuple[Party, Sequence[Party]]]:
        """The host outside, which is outside of all nodes."""
        outside = parties.get(underlay.OUTSIDE)
        return [(outside, nodes)] if outside is not None and nodes else []

    def users(self, site: users.Site) -> list[users.Way]:
        """All of them."""
        return served.users(self._client, site)

    def names(
        self,
        own: Own,
        pods: Sequence[Party],
        nodes: Sequence[Party],
        confs: Mapping[str, ResolvConf],
        ask: lookups.Ask,
        denied_by: lookups.DeniedBy,
    ) -> Found:
        """The check's own, the users', and one outside; pods without files of their own ask the cluster's DNS."""
        have_files = not self._settings.sandbox_only
        site = lookups.NameSite(self._settings.cluster_domain, confs if have_files else None, self.outside.ips)
        return lookups.examine(self._client, own, pods, nodes, site, ask, denied_by)

    def further(self, who: Gathered, parties: Sequence[Party], everything: bool, ask: Ask) -> list[Verdict]:
        """What is sent from and to the pods that the users' policies select; nothing while there is none."""
        pods, nodes = ([p for p in parties if p.kind == kind] for kind in ("pod", "node"))
        paths = {member.name: f"{member.namespace}/{member.pod}" for member in who.members}
        outside = replace(self.outside, port=USUAL_PORT)  # nobody listens there: what is refused has passed
        around = Around(pods, nodes, [outside], paths)
        ways = list(every_way(around, who.cluster, briefly=True) if everything else some_ways(around, who.cluster))
        judged = _judged(ways, around, who.cluster)
        answers = ask([probe for probe, said in judged.items() if said.allowed], PROBE_SECONDS)
        answers |= ask([probe for probe, said in judged.items() if not said.allowed], DENIED_SECONDS)
        again = [probe for probe, said in judged.items() if said.allowed and policies.judge(probe, said, answers.get(probe))]
        answers |= ask(again, AGAIN_SECONDS)
        if any(policies.judge(probe, said, answers.get(probe)) for probe, said in judged.items()):
            judged = policies.unchanged(
                judged, _judged(ways, around, cluster(self._client))
            )  # somebody may have changed policies
        unclear = policies.untold(judged, answers)
        found = policies.verdict(judged, answers, unclear)
        found.pairs = policies.fates(judged, answers, unclear)
        return [found] if judged else []


def _judged(ways: Iterable[Way], around: Around, known: Cluster) -> policies.Judged:
    """What is sent, with what shows that there is somebody who would answer."""
    judged = policies.plan(ways, around.paths, known)
    return {**judged, **policies.controls(judged, around, known)}
