"""The result of the benches as Markdown: what docs/performance.md says. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.common import Row

HEADER = """# How fast podplane is

Measured by `make bench`, which writes this page. Every figure is the median of several runs; ratios are of paired runs, one right
after the other on the same machine. "By hand" is the same path built with `ip`, `sysctl` and `nft` commands. Where the word is
"no", the figure misses what podplane promises itself.

## How a figure is judged

Machines differ by two to three times, so a promise in seconds is made for one machine: the reference machine, an Intel Xeon with
2 cores, Linux 6.18 and Python 3.11. On another machine it is multiplied by a machine factor, and a promise of so many a second is
divided by it. `make bench` measures the factor before and after each bench, by two pieces of work that are written out in
`bench/factor.py` and never change with podplane's code:

- **python**: addresses, keys, frozen objects, dictionaries that are merged and compared, messages packed and unpacked with `struct`;
- **kernel**: 100 network namespaces, 200 veth pairs, 100,000 elements of an nf_tables map, sent as bytes that were packed before;
- **mixed**: half of each.

The column "here" has the promise on this machine, with the kind of work and the factor. Ratios, memory and counts have no factor.

{calibration}

The column "floor" has what the kernel alone takes, in the same run, and how many times as long the figure is: for Services the
replay of the same transactions from bytes, without planning and coding; for a lab hand-packed messages that make as many namespaces,
links, addresses and routes, and start no process.

Beside the figures of Services: kube-proxy 1.36 in its nftables mode, measured elsewhere on this kind of machine, took 51 s and
378 MB for 10,000 Services with 10 endpoints each into an empty kernel, and 6.2 s for one endpoint that changed among them. With a
`kube-proxy` on the PATH, and as root, `make bench` runs it too: side by side, on a slower machine (AMD EPYC, 2026-11-25), it took 77 s, 16
times as long as podplane, and 7.8 s for one endpoint, 9,900 times as long.

Figures of names: the process of a lab's name server, CoreDNS with its kubernetes plugin (`GOMAXPROCS=1`, fed by the same API), and Unbound
(one thread, the same names as local data) keep to one core, and `dnsperf` asks them in turns from another. Those of them that are not on
the PATH are left out. "Added to the start of a lab" is beside labs that start no name server.
"""
WHOLE = ("MB", "KB", "/s", "ADDs")
"""Units whose figures have no decimals."""


def figure(value: float, unit: str) -> str:
    """A figure with its unit."""
    if unit in WHOLE:
        return f"{value:,.0f} {unit}"
    return f"{value:.1f} {unit}" if unit == "ms" else f"{value:.3f} {unit}"


def must(row: Row) -> str:
    """What a figure must be on the reference machine, and beside its floor."""
    sign = "≥" if row.at_least else "≤"
    parts = [] if row.must is None else [f"{sign} {row.must:g} {row.unit}"]
    parts += [] if row.floor_must is None else [f"≤ {row.floor_must:g} × floor"]
    return ", ".join(parts)


def here(row: Row) -> str:
    """What it must be on this machine, and why."""
    if row.must_here is None or not row.work:
        return ""
    return f"{'≥' if row.at_least else '≤'} {figure(row.must_here, row.unit)} ({row.work} {row.factor:.2f})"


def floor(row: Row) -> str:
    """What the kernel alone takes, and how many times as long the figure is."""
    return f"{figure(median(row.floor), row.unit)}, × {row.floor_ratio:.1f}" if row.floor else ""


def table(rows: Sequence[Row]) -> str:
    """Rows as a table."""
    lines = ["| what | median | lowest … highest | must | here | kept | floor | |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        spread = f"{min(row.samples):.3g} … {max(row.samples):.3g} ({len(row.samples)})"
        cells = (row.what, figure(row.value, row.unit), spread, must(row), here(row), row.verdict, floor(row), row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(facts: Mapping[str, str], rows: Sequence[Row], calibration: str) -> str:
    """The whole page."""
    lines = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    header = HEADER.format(calibration=calibration)
    return f"{header}\n## The machine\n\n{lines}\n## Figures\n\n{table(rows)}\n"
