"""Figures in Prometheus' text format, by the library prometheus-client.

That is imported when somebody asks first, in a thread: its import takes longer than a turn of the loop may. Figures are collected by the
program itself, so that a program that nobody asks pays nothing for the library. Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the figure."""
Buckets = Sequence[tuple[str, float]]
"""(upper bound, how many are at most that), up to "+Inf"."""
Distributions = Iterable[tuple[Sequence[str], Buckets, float]]
"""Values of the labels, buckets, and the sum of all that was measured."""


class Figures:
    """What was read at one moment; `text` may be called in any thread. With `process`, figures of the process itself, too."""

    def __init__(self, *, process: bool = False) -> None:
        self._process = process
        self._figures: list[tuple[str, str, str, Sequence[str], list[tuple[Sequence[str], float]]]] = []
        self._histograms: list[tuple[str, str, Sequence[str], list[tuple[Sequence[str], Buckets, float]]]] = []

    def gauge(self, name: str, text: str, labels: Sequence[str], samples: Samples) -> None:
        """Something that goes up and down."""
        self._figures.append(("gauge", name, text, labels, list(samples)))

    def counter(self, name: str, text: str, labels: Sequence[str], samples: Samples) -> None:
        """Something that is counted; `name` is without `_total`."""
        self._figures.append(("counter", name, text, labels, list(samples)))

    def histogram(self, name: str, text: str, labels: Sequence[str], distributions: Distributions) -> None:
        """How something that is measured is distributed."""
        self._histograms.append((name, text, labels, list(distributions)))

    def collect(self) -> Iterable[Any]:
        """The families, as prometheus-client's registries give them."""
        from prometheus_client import ProcessCollector
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        kinds: dict[str, Any] = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        for kind, name, text, labels, samples in self._figures:
            family = kinds[kind](name, text, labels=labels)
            for values, figure in samples:
                family.add_metric(values, figure)
            yield family
        for name, text, labels, distributions in self._histograms:
            family = HistogramMetricFamily(name, text, labels=labels)
            for values, buckets, total in distributions:
                family.add_metric(values, buckets, total)
            yield family
        if self._process:
            yield from ProcessCollector(registry=None).collect()

    def text(self) -> bytes:
        """Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self)  # of a registry it calls `collect` only


def by_name(figures: Mapping[str, float]) -> Samples:
    """Figures with one label."""
    return (((name,), figure) for name, figure in figures.items())
