"""What events say when the kernel refuses objects: of which key, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from podplane.agent.keys import ClusterNetworkPolicyKey, NetworkPolicyKey, NodeKey, PeerKey, PolicyPodKey, of_policy
from podplane.agent.watcher import CONTRADICTIONS
from podplane.model.view import View
from podplane.policy.enforced import AllEnforced
from podplane.state.ledger import Ledger
from podplane.state.operations import Report
from podplane.state.value import Identity

EVENTS_A_REPORT = 10
"""Of so many keys events are written when the kernel refuses objects of theirs at once; the log says how many objects those were."""


def events(report: Report, ledger: Ledger, view: View, enforced: AllEnforced) -> Iterator[tuple[Any, str]]:
    """A key, of which an event is to be written, and what it says."""
    refused: dict[Any, Exception] = {}
    for key, error in _refused_keys(report, ledger, view, enforced):
        refused.setdefault(key, error)
        if len(refused) >= EVENTS_A_REPORT:  # a whole table may be refused, with all Services in it
            break
    for key, error in refused.items():
        if isinstance(key, PeerKey):
            yield NodeKey(view.node_name), f"the kernel refuses what leads to {key.path}: {error}"
        elif isinstance(key, NetworkPolicyKey | ClusterNetworkPolicyKey):
            yield key, f"on {view.node_name}: the kernel refuses it: {error}"
        else:
            yield key, f"the kernel refuses it: {error}"


def _refused_keys(report: Report, ledger: Ledger, view: View, enforced: AllEnforced) -> Iterator[tuple[Any, Exception]]:
    """The keys whose objects were refused for a reason that no reading explains, each with the error."""
    for failure in report.failed:
        identity = failure.operation.value.identity
        refusal = ledger.refusal(identity)
        if refusal is not None and (refusal.tries > 1 or not isinstance(failure.error, CONTRADICTIONS)):
            owners = ledger.desired.owners(identity)
            yield from ((one, failure.error) for key in owners for one in _about(key, identity, view, enforced))


def _about(key: Any, identity: Identity, view: View, enforced: AllEnforced) -> Iterator[Any]:
    """Whose object is refused: of what policies say that they, or else what the key is about."""
    policies = view.policies if isinstance(key, PolicyPodKey) else None
    if policies is not None:
        under = enforced.of(key)
        names = {one.name for one in (under.programs if under else ()) if identity in one.fragment}
        found = [of_policy(one) for one in policies.policies_of(key.path) if one.metadata.path in names]
        yield from found or [key]
    else:
        yield key
