"""What of a check depends on where it is made: in a lab, or on a cluster that others made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from podplane.cli.check import lookups
from podplane.cli.check.parties import Gathered
from podplane.cli.check.promises import HasTunnel, Largest, Party, Verdict
from podplane.cli.check.questions import Ask
from podplane.cli.check.served import Made
from podplane.cli.check.services import Own
from podplane.cli.check.users import Site, Way
from podplane.dns.resolv_conf import ResolvConf

Found = tuple[list[Verdict], list[str]]
"""Verdicts, and what was left out."""


class Scene(Protocol):
    """The parties are the same everywhere (`parties.Member`): containers in which a prober runs that is asked through the API."""

    @property
    def outside(self) -> Party | None:
        """The host outside that answers pods, if there is one."""

    @property
    def site(self) -> Site:
        """Where Services are."""

    @property
    def unproved(self) -> Mapping[str, str]:
        """Promises that nobody can prove here, and why."""

    @property
    def stalled_seconds(self) -> float:
        """How long probers are waited for while none of them begins."""

    def ways(self) -> tuple[HasTunnel, Largest]:
        """What is between nodes."""

    def made(
        self, endpoints: Sequence[Party], node_ips: Mapping[str, Sequence[str]], sources: Sequence[Party], ask: Ask
    ) -> Made:
        """The check's own Services, once the nodes have them as far as that can be waited for."""

    def outsiders(self, parties: Mapping[str, Party], nodes: Sequence[Party]) -> Iterable[tuple[Party, Sequence[Party]]]:
        """Who comes to Services from outside of some nodes, and these."""

    def users(self, site: Site) -> list[Way]:
        """The ways to the users' Services, as far as these take part."""

    def names(
        self,
        own: Own,
        pods: Sequence[Party],
        nodes: Sequence[Party],
        confs: Mapping[str, ResolvConf],
        ask: lookups.Ask,
        denied_by: lookups.DeniedBy,
    ) -> Found:
        """Names looked up by these parties, of whom each has a resolv.conf."""

    def further(self, who: Gathered, parties: Sequence[Party], everything: bool, ask: Ask) -> list[Verdict]:
        """Promises that are proved last: what policies let pass, for instance."""
