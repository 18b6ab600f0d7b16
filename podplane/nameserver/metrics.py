"""The figures of a node's name server for Prometheus: with CoreDNS's names where they mean the same, so that its dashboards go on working.

Names and labels of CoreDNS: coredns/coredns, README of the plugins metrics, cache and forward. Its label `server` is what it listens at,
`zone` is here always the root, as questions are not counted by zone, `view` and `plugin` are empty: there are none.
What one process does for all nodes that it serves (what it keeps, whom it asks, what it costs) is the same on each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from podplane import __version__
from podplane.dns.cache import Cache
from podplane.model.name_server import MemoryStatus, NameServerStatus, UpstreamStatus
from podplane.nameserver.forwarder import Forwarder
from podplane.nameserver.kept import Kept
from podplane.servers.dns_counts import OTHER, SIZES, Counts, Kind, Lane
from podplane.servers.figures import Buckets, Figures, Samples, by_name

SERVER = ("dns://:53", ".", "")
LABELS = ("server", "zone", "view")
CACHE, CACHE_LABELS = ("dns://:53", ".", ""), ("server", "zones", "view")
FAMILIES = {4: "1", 6: "2"}
"""How CoreDNS writes IP versions."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a process counts; `kept` are its kept responses."""

    counts: Counts
    forwarder: Forwarder
    kept: Callable[[], Kept]

    def memory(self) -> MemoryStatus:
        """What is kept."""
        kept, cache = self.kept(), self.forwarder.cache
        hits = sum(cache.counts.hits.values())
        looked_for = hits + cache.counts.misses
        return MemoryStatus(len(kept), kept.size, len(cache), cache.bytes, looked_for, hits, cache.counts.stale)

    def lanes(self, node: str) -> list[Lane]:
        """The counts of a node."""
        return [lane for lane in self.counts.lanes.values() if lane.node == node]


class Metrics(Figures):
    """What was read of a node at one moment; `text` may be called in any thread."""

    def __init__(self, counted: Counted, status: NameServerStatus) -> None:
        """Read everything that changes, on the event loop."""
        super().__init__(process=True)
        lanes = [(lane, counted.counts.of(lane)) for lane in counted.lanes(status.node)]
        self.gauge(
            "coredns_build_info",
            "What runs here.",
            ("version", "revision", "goversion"),
            [((f"podplane {__version__}", "", ""), 1)],
        )
        self._questions(lanes)
        self._sizes(lanes)
        self._cache(counted.forwarder.cache)
        self._upstreams(counted.forwarder, status)
        self._own(counted.kept(), lanes, status)

    def _questions(self, lanes: Sequence[tuple[Lane, dict[Kind, int]]]) -> None:
        asked: Counter[tuple[str, ...]] = Counter()
        answered: Counter[tuple[str, ...]] = Counter()
        for lane, kinds in lanes:
            for kind, count in kinds.items():
                asked[*SERVER, lane.protocol, FAMILIES[lane.version], kind.type or OTHER] += count
                answered[*SERVER, kind.rcode, ""] += count
        self.counter(
            "coredns_dns_requests", "Questions that were answered.", (*LABELS, "proto", "family", "type"), asked.items()
        )
        self.counter("coredns_dns_responses", "Answers by their code.", (*LABELS, "rcode", "plugin"), answered.items())
        durations = [lane.durations for lane, _ in lanes]
        buckets = _summed(one.cumulative() for one in durations)
        self.histogram(
            "coredns_dns_request_duration_seconds",
            "From reading a question to sending its answer.",
            LABELS,
            [(SERVER, buckets, sum(one.total for one in durations))] if buckets else (),
        )

    def _sizes(self, lanes: Sequence[tuple[Lane, dict[Kind, int]]]) -> None:
        size: Callable[[Kind], int]
        total: Callable[[Lane], int]
        for name, what, size, total in (
            ("request", "questions", lambda kind: kind.request_bytes, lambda lane: lane.request_bytes),
            ("response", "answers", lambda kind: kind.response_bytes, lambda lane: lane.response_bytes),
        ):
            rows = []
            for protocol in sorted({lane.protocol for lane, _ in lanes}):
                own = [(lane, kinds) for lane, kinds in lanes if lane.protocol == protocol]
                by_size = Counter[int]()
                for _, kinds in own:
                    for kind, count in kinds.items():
                        by_size[size(kind)] += count
                rows.append(((*SERVER, protocol), _by_bound(by_size), sum(total(lane) for lane, _ in own)))
            self.histogram(f"coredns_dns_{name}_size_bytes", f"The sizes of {what}.", (*LABELS, "proto"), rows)

    def _cache(self, cache: Cache) -> None:
        counts = cache.counts
        for name, text, by_type in (
            ("hits", "Questions that the cache answered.", counts.hits),
            ("evictions", "Answers that had to go before their time.", counts.evictions),
        ):
            self.counter(f"coredns_cache_{name}", text, (*CACHE_LABELS, "type"), _of_cache(by_type))
        self.gauge("coredns_cache_entries", "Answers in the cache.", (*CACHE_LABELS, "type"), _of_cache(counts.entries))
        for name, text, count in (
            ("requests", "Questions that the cache was asked.", sum(counts.hits.values()) + counts.misses),
            ("misses", "Questions that the cache did not answer.", counts.misses),
            ("prefetch", "Answers that were asked for again before their time was over.", counts.prefetches),
            ("served_stale", "Answers that were too old, while no server gave one.", counts.stale),
        ):
            self.counter(f"coredns_cache_{name}", text, CACHE_LABELS, [(CACHE, count)])
        self.gauge("podplane_dns_cache_bytes", "Memory of the cache.", (), [((), cache.bytes)])

    def _upstreams(self, forwarder: Forwarder, status: NameServerStatus) -> None:
        to: dict[str, list[UpstreamStatus]] = {}
        for one in status.upstreams:  # a server may be asked for several zones
            to.setdefault(one.server, []).append(one)
        asked = {name: sum(one.asked for one in each) for name, each in to.items()}
        self.counter("coredns_forward_requests", "Questions to a server.", ("to",), by_name(asked))
        rejected = "Questions that were one too many at the same time."
        self.counter("coredns_forward_max_concurrent_rejects", rejected, (), [((), forwarder.refused)])
        failed = {name: sum(one.failed for one in each) for name, each in to.items()}
        self.counter("podplane_dns_upstream_failures", "Questions that a server did not answer.", ("to",), by_name(failed))
        up = {name: float(all(one.is_up for one in each)) for name, each in to.items()}
        self.gauge(
            "podplane_dns_upstream_up", "Does a server answer, for all zones that it is asked for?", ("to",), by_name(up)
        )
        known = {name: [one.round_trip for one in each if one.round_trip is not None] for name, each in to.items()}
        times = {name: min(each) for name, each in known.items() if each}
        self.gauge("podplane_dns_upstream_round_trip_seconds", "How fast a server answers, smoothed.", ("to",), by_name(times))

    def _own(self, kept: Kept, lanes: Sequence[tuple[Lane, dict[Kind, int]]], status: NameServerStatus) -> None:
        silent = sum(lane.silent for lane, _ in lanes)
        self.counter("podplane_dns_unanswered_requests", "Messages that got no answer.", (), [((), silent)])
        dropped = sum(one() for lane, _ in lanes for one in lane.dropped)
        self.counter("podplane_dns_dropped_requests", "Datagrams that the kernel dropped: too many came.", (), [((), dropped)])
        self.gauge("podplane_dns_kept_responses", "Responses that are kept.", (), [((), len(kept))])
        self.gauge("podplane_dns_kept_bytes", "Memory of kept responses.", (), [((), kept.size)])
        objects = {one.resource: one.objects for one in status.caches}
        self.gauge("podplane_dns_objects", "Objects of the cluster that are known.", ("resource",), by_name(objects))
        failures = (((one.resource, kind), count) for one in status.caches for kind, count in one.failures.items())
        self.counter("podplane_dns_informer_failures", "Failures of lists and watches.", ("resource", "kind"), failures)
        if status.heard_age is not None:
            self.gauge(
                "podplane_dns_api_heard_age_seconds", "Since the API said last how things are.", (), [((), status.heard_age)]
            )
        self.gauge(
            "podplane_dns_config_valid", "Does the configuration make sense?", (), [((), float(not status.config.error))]
        )
        self.counter("podplane_dns_restarts", "Starts of the process after it had ended.", (), [((), status.restarts)])
        restarts = {task.name: task.restarts for task in status.tasks}
        self.counter("podplane_dns_task_restarts", "Starts of tasks that had ended.", ("task",), by_name(restarts))


def _summed(histograms: Iterable[Sequence[tuple[str, int]]]) -> Buckets:
    """Buckets with the same bounds, added up."""
    sums: Counter[str] = Counter()
    for one in histograms:
        sums.update(dict(one))
    return list(sums.items())


def _by_bound(by_size: Counter[int]) -> Buckets:
    """Sizes by the bounds of their buckets, as cumulative counts; the last bound is that of all."""
    counts = list(accumulate(by_size[bound] for bound in SIZES))
    return [*zip(map(str, SIZES), counts, strict=True), ("+Inf", counts[-1])]


def _of_cache(by_type: dict[str, int]) -> Samples:
    return (((*CACHE, type_), count) for type_, count in by_type.items())
