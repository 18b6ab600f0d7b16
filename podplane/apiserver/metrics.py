"""The figures of the API server in Prometheus' text format: kube-apiserver's names, labels and buckets (endpoints/metrics.go).

A request costs two entries of dictionaries. What is there (objects, watches) is counted when somebody asks. The library prometheus-client
is imported then, in a thread: its import takes longer than a turn of the loop may.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from podplane.apiserver import discovery, health
from podplane.apiserver.identity import Attributes
from podplane.apiserver.registry import Registry
from podplane.apiserver.store import Store
from podplane.apiserver.watch import Hub
from podplane.kubeapi.messages import Answer, Request, Response
from podplane.servers.durations import Durations

PATH, CONTENT_TYPE = "/metrics", "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0),
    *(3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)
"""Of durations, in seconds."""
VERBS = {"create": "POST", "update": "PUT"} | {
    verb: verb.upper() for verb in ("get", "list", "watch", "patch", "delete", "deletecollection", "post", "put")
}
OTHER_VERB = "other"
"""Of whatever else a client calls its method."""
CONNECTIONS = ("exec", "attach", "portforward", "proxy")
"""Subresources of which a request is a connection."""
KNOWN_PATHS = (*health.PATHS, PATH, "/version", "/api", "/apis", "/openapi/v2", "/openapi/v3")
"""Paths of no resource that are told apart."""
LABELS = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
UNFORESEEN, UNWRITTEN = "podplane_unforeseen_errors", "podplane_unwritten_transactions"
COUNTERS = ("apiserver_request", UNFORESEEN, UNWRITTEN)
"""Families whose figures only grow; the format adds `_total`."""
READ_ONLY = ("GET", "HEAD")
Labels = tuple[str, ...]
Family = tuple[str, str, Sequence[str], dict[Labels, float]]
"""(name, text, labels, figures by the values of the labels)."""


def labels_of(request: Request, what: Attributes, registry: Registry) -> Labels:
    """The values of `LABELS` for a request: of each label only what is served, since a figure stays for good."""
    subresource = what.subresource if what.subresource and _is_served(what, registry) else ""
    verb = "CONNECT" if subresource in CONNECTIONS else VERBS.get(what.verb, OTHER_VERB)
    dry_run, scope = "All" if any(request.query.get("dryRun", ())) else "", ""
    if what.resource:
        scope = "resource" if what.name or what.verb == "create" else "namespace" if what.namespace else "cluster"
    else:
        path = request.path.rstrip("/") or "/"
        subresource = next((known for known in KNOWN_PATHS if path == known or path.startswith(f"{known}/")), "")
    return verb, dry_run, what.group, what.version, what.resource, subresource, scope, "apiserver"


def _is_served(what: Attributes, registry: Registry) -> bool:
    row = registry.find(what.group, what.version, what.resource)
    return row is not None and any(name == what.subresource for name, *_ in discovery.subresources(row))


class Figures:
    """What is counted of requests as they are answered."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.requests: Counter[Labels] = Counter()
        """By `LABELS` and the status."""
        self.durations: dict[Labels, Durations] = {}
        """Of answers that are whole."""
        self.inflight = {"readOnly": 0, "mutating": 0}

    @contextlib.contextmanager
    def answering(self, request: Request) -> Iterator[float]:
        """A request is being answered; gives the time at which that began."""
        kind = "readOnly" if request.method in READ_ONLY else "mutating"
        self.inflight[kind] += 1
        try:
            yield time.perf_counter()
        finally:
            self.inflight[kind] -= 1

    def record(self, request: Request, what: Attributes, answer: Answer, begun: float) -> None:
        """A request is answered. An answer that goes on counts when it begins, and has no duration."""
        labels = labels_of(request, what, self._registry)
        self.requests[(*labels, str(getattr(answer, "status", 101)))] += 1
        if isinstance(answer, Response):
            durations = self.durations.get(labels)
            if durations is None:
                durations = self.durations[labels] = Durations(BOUNDS)
            durations.add(time.perf_counter() - begun)


class Metrics:
    """What was read at one moment; `text` may be called in any thread."""

    def __init__(
        self,
        figures: Figures,
        store: Store,
        registry: Registry,
        hub: Hub,
        version: Mapping[str, str],
        unforeseen: Mapping[str, int],
    ) -> None:
        """Read everything that changes, on the event loop."""
        self._families: list[Family] = []
        self._durations = [(labels, one.cumulative(), one.total) for labels, one in figures.durations.items()]
        self._add("apiserver_request", "Requests by what they asked for and their answer.", (*LABELS, "code"), figures.requests)
        inflight = {(kind,): count for kind, count in figures.inflight.items()}
        self._add("apiserver_current_inflight_requests", "Requests that are being answered.", ("request_kind",), inflight)
        watches = Counter(("WATCH", row.group, row.version, row.plural, "", scope, "apiserver") for row, scope in hub.watched())
        without_run = tuple(label for label in LABELS if label != "dry_run")
        self._add("apiserver_longrunning_requests", "Watches that are open.", without_run, watches)
        objects = [(row, store.count(row.id)) for row in registry.stored()]
        text, by_group = "Objects that are stored.", {(row.group, row.plural): count for row, count in objects}
        self._add("apiserver_resource_objects", text, ("group", "resource"), by_group)
        self._add("apiserver_storage_objects", f"{text} (The former name.)", ("resource",), {(r.id,): n for r, n in objects})
        by_module = {(module,): count for module, count in unforeseen.items()}
        self._add(UNFORESEEN, "Errors that nobody thought of, by the module that logged them.", ("module",), by_module)
        self._add(UNWRITTEN, "Transactions that the disk did not take.", (), {(): store.refusals})
        build = {"major": "major", "minor": "minor", "git_version": "gitVersion", "platform": "platform"}
        built = {tuple(version[name] for name in build.values()): 1}
        self._add("kubernetes_build_info", "The version, as labels of the figure 1.", tuple(build), built)

    def _add(self, name: str, text: str, labels: Sequence[str], samples: Mapping[Any, float]) -> None:
        self._families.append((name, text, labels, dict(samples)))

    def collect(self) -> Iterable[Any]:
        """The families, as prometheus-client's registries give them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
        from prometheus_client.process_collector import ProcessCollector

        for name, text, labels, samples in self._families:
            kind: Any = CounterMetricFamily if name in COUNTERS else GaugeMetricFamily
            family = kind(name, text, labels=labels)
            for values, figure in samples.items():
                family.add_metric(values, figure)
            yield family
        durations = HistogramMetricFamily("apiserver_request_duration_seconds", "How long answers took.", labels=LABELS)
        for values, buckets, total in self._durations:
            durations.add_metric(values, buckets, total)
        yield durations
        yield from ProcessCollector(registry=None).collect()

    def text(self) -> bytes:
        """Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self)  # of a registry it calls `collect` only
