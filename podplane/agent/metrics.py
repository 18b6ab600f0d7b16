"""The figures of a node's agent in Prometheus' text format, by the library prometheus-client.

That is imported when somebody asks first, in a thread: its import takes longer than a turn of the loop may. Figures are collected by the
agent itself, so that an agent whom nobody asks pays nothing for the library. Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podplane.agent.status import Counts, Sources

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Requests = Mapping[tuple[str, int], int]
"""(path, HTTP status) → how many."""
Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the figure."""


class Metrics:
    """What was read of a node at one moment; `text` may be called in any thread."""

    def __init__(self, sources: Sources, counts: Counts, requests: Requests) -> None:
        """Read everything that changes, on the event loop."""
        agent = sources.agent
        self._durations, self._duration_sum = agent.reconciles.cumulative(), agent.reconciles.total
        self._figures: list[tuple[str, str, str, Sequence[str], list[tuple[Sequence[str], float]]]] = []
        self._gauge("objects", "Kernel objects by feature and status.", ("feature", "status"), _objects(counts))
        operations = (("applied", agent.writer.operations_applied), ("refused", agent.writer.operations_refused))
        self._counter("operations", "Changes that the kernel took or refused.", ("result",), _by_name(dict(operations)))
        self._counter(
            "repairs", "Objects that somebody else changed and that were repaired.", ("kind",), _by_name(agent.watcher.repaired)
        )
        audits = {part.value: audit.count for part, audit in agent.watcher.audits.items()}
        self._counter("audits", "Readings of the kernel.", ("part",), _by_name(audits))
        self._gauge("dirty_keys", "Keys that wait to be planned.", ("feature",), _by_name(agent.planner.dirty_keys()))
        blocked = dict.fromkeys(agent.planner.dirty_keys(), 0) | sources.blocked_by_feature()
        self._gauge("blocked_keys", "Keys that can't be planned as they are wanted.", ("feature",), _by_name(blocked))
        failures = (((cache.resource, kind), count) for cache in sources.caches() for kind, count in cache.failures.items())
        self._counter("informer_failures", "Failures of lists, watches and their readers.", ("resource", "kind"), failures)
        restarts = {name: task.restarts for name, task in sources.tasks().items()}
        self._counter("task_restarts", "Starts of tasks that had ended.", ("task",), _by_name(restarts))
        answered = (((path, str(status)), count) for (path, status), count in requests.items())
        self._counter("http_requests", "Requests that the agent's port answered.", ("path", "code"), answered)

    def _gauge(self, name: str, text: str, labels: Sequence[str], samples: Samples) -> None:
        self._figures.append(("gauge", f"podplane_{name}", text, labels, list(samples)))

    def _counter(self, name: str, text: str, labels: Sequence[str], samples: Samples) -> None:
        self._figures.append(("counter", f"podplane_{name}", text, labels, list(samples)))

    def collect(self) -> Iterable[Any]:
        """The families, as prometheus-client's registries give them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        kinds: dict[str, Any] = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        for kind, name, text, labels, samples in self._figures:
            family = kinds[kind](name, text, labels=labels)
            for values, figure in samples:
                family.add_metric(values, figure)
            yield family
        durations = HistogramMetricFamily("podplane_reconcile_duration_seconds", "From planning to the kernel's answer.")
        durations.add_metric([], self._durations, self._duration_sum)
        yield durations

    def text(self) -> bytes:
        """Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self)  # of a registry it calls `collect` only


def _by_name(figures: Mapping[str, float]) -> Samples:
    return (((name,), figure) for name, figure in figures.items())


def _objects(counts: Counts) -> Samples:
    sums: Counter[tuple[str, str]] = Counter()
    for (feature, _), row in counts.items():
        for status, count in row.items():
            sums[feature or "none", status.value] += count
    return sums.items()
