"""The figures of a node's agent for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from podplane.agent.status import Counts, Sources
from podplane.model.answers import PeerWay, PolicyCounts
from podplane.servers.figures import Figures, Samples, by_name

Requests = Mapping[tuple[str, int], int]
"""(path, HTTP status) → how many."""


class Metrics(Figures):
    """What was read of a node at one moment; `text` may be called in any thread."""

    def __init__(self, sources: Sources, counts: Counts, requests: Requests, policies: PolicyCounts) -> None:
        """Read everything that changes, on the event loop."""
        super().__init__()
        agent = sources.agent
        self.gauge("podplane_objects", "Kernel objects by feature and status.", ("feature", "status"), _objects(counts))
        operations = (("applied", agent.writer.operations_applied), ("refused", agent.writer.operations_refused))
        self.counter("podplane_operations", "Changes that the kernel took or refused.", ("result",), by_name(dict(operations)))
        self.counter(
            "podplane_repairs",
            "Objects that somebody else changed and that were repaired.",
            ("kind",),
            by_name(agent.watcher.repaired),
        )
        audits = {part.value: audit.count for part, audit in agent.watcher.audits.items()}
        self.counter("podplane_audits", "Readings of the kernel.", ("part",), by_name(audits))
        self.gauge("podplane_dirty_keys", "Keys that wait to be planned.", ("feature",), by_name(agent.planner.dirty_keys()))
        blocked = dict.fromkeys(agent.planner.dirty_keys(), 0) | sources.blocked_by_feature()
        self.gauge("podplane_blocked_keys", "Keys that can't be planned as they are wanted.", ("feature",), by_name(blocked))
        self.gauge(
            "podplane_unmet",
            "Things that the node does without, or that are in its agent's way.",
            (),
            [((), len(sources.unmet()))],
        )
        failures = (((cache.resource, kind), count) for cache in sources.caches() for kind, count in cache.failures.items())
        self.counter(
            "podplane_informer_failures", "Failures of lists, watches and their readers.", ("resource", "kind"), failures
        )
        restarts = {name: task.restarts for name, task in sources.tasks().items()}
        self.counter("podplane_task_restarts", "Starts of tasks that had ended.", ("task",), by_name(restarts))
        durations = ((), agent.reconciles.cumulative(), agent.reconciles.total)
        self.histogram("podplane_reconcile_duration_seconds", "From planning to the kernel's answer.", (), [durations])
        answered = (((path, str(status)), count) for (path, status), count in requests.items())
        self._policies(policies, agent.denied.told)
        self._peers(sources.peers.ways(), len(agent.view.withdrawn))
        self.counter("podplane_http_requests", "Requests that the agent's port answered.", ("path", "code"), answered)

    def _peers(self, ways: Sequence[PeerWay], withdrawn: int) -> None:
        labels = ("peer", "over", "address")
        rows = [((one.peer, one.backend or one.layer, one.ip), one) for one in ways]
        reached = ((names, float(one.state == "reached")) for names, one in rows if one.state != "unknown")
        self.gauge("podplane_peer_reached", "Is a peer reached over this way?", labels, reached)
        latency = ((names, one.latency) for names, one in rows if one.latency is not None)
        self.gauge("podplane_peer_latency_seconds", "Round trips of probes, smoothed.", labels, latency)
        loss = ((names, one.loss) for names, one in rows)
        self.gauge("podplane_peer_loss_ratio", "The part of the last probes that was lost.", labels, loss)
        self.gauge("podplane_withdrawn_peers", "Peers whose routes are withdrawn.", (), [((), withdrawn)])

    def _policies(self, counts: PolicyCounts, told: int) -> None:
        rules = (((*one.policy.split("/"), one.direction, str(one.rule)), one.connections) for one in counts.rules)
        labels = ("namespace", "policy", "direction", "rule")
        self.counter("podplane_policy_allowed_connections", "Connections that a rule of a policy allowed.", labels, rules)
        denials = (((one.direction, " ".join(one.policies)), one.packets) for one in counts.denials)
        text = "Packets that none of the policies of their pod allowed."
        self.counter("podplane_policy_denied_packets", text, ("direction", "policies"), denials)
        together = (((one.direction, " ".join(one.together)), one.connections) for one in counts.denials if one.together)
        text = "Connections that policies allowed which are counted together."
        self.counter("podplane_policy_group_allowed_connections", text, ("direction", "policies"), together)
        text = "Packets that were dropped, by reason."
        self.counter("podplane_policy_dropped_packets", text, ("reason",), by_name(counts.dropped))
        self.counter("podplane_policy_told_packets", "Dropped packets that were told apart.", (), [((), told)])


def _objects(counts: Counts) -> Samples:
    sums: Counter[tuple[str, str]] = Counter()
    for (feature, _), row in counts.items():
        for status, count in row.items():
            sums[feature or "none", status.value] += count
    return sums.items()
