"""Run the benches: `python -m bench.run [--quick] [--markdown FILE] [start_stop|traffic|one_more_pod|commands|api|workloads|services …]`.

Prints a table and writes all samples, with the machine they were measured on, to bench/results.json. Benches that are not run
again keep their figures there, if they are of this machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from bench import (
    api,
    commands,
    kube_proxy,
    neighbours,
    one_more_pod,
    services,
    services_events,
    services_traffic,
    start_stop,
    traffic,
    workloads,
)
from bench.common import Row

BENCHES = {
    "commands": commands.run,
    "traffic": traffic.run,
    "neighbours": neighbours.run,
    "one_more_pod": one_more_pod.run,
    "start_stop": start_stop.run,
    "api": api.run,
    "workloads": workloads.run,
    "services": services.run,
    "services_events": services_events.run,
    "services_traffic": services_traffic.run,
    "kube_proxy": kube_proxy.run,
}
RESULTS = Path(__file__).with_name("results.json")
HEADER = """# How fast podplane is

Measured by `make bench`, which writes this page. Every figure is the median of several runs; ratios are of paired runs, one right
after the other on the same machine. "By hand" is the same path built with `ip`, `sysctl` and `nft` commands. Where the word is
"no", the figure misses what podplane promises itself.

Beside the figures of Services: kube-proxy 1.36 in its nftables mode, measured elsewhere on this kind of machine, took 51 s and
378 MB for 10,000 Services with 10 endpoints each into an empty kernel, and 6.2 s for one endpoint that changed among them. With a
`kube-proxy` on the PATH, and as root, `make bench` runs it too: side by side, on a slower machine (AMD EPYC, 2026-11-25), it took 77 s, 16
times as long as podplane, and 7.8 s for one endpoint, 9,900 times as long.
"""


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "CPU": f"{model}, {os.cpu_count()} cores",
        "memory": f"{int(memory) / 1e6:.0f} GB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "user": "root" if os.getuid() == 0 else "an ordinary user",
    }


def figure(value: float, unit: str) -> str:
    """A figure with its unit."""
    return (
        f"{value:,.0f} {unit}"
        if unit in ("MB", "KB", "/s")
        else f"{value:.1f} {unit}"
        if unit == "ms"
        else f"{value:.3f} {unit}"
    )


def must(row: Row) -> str:
    """What a figure must be."""
    if row.must is None:
        return ""
    return f"{'≥' if row.at_least else '≤'} {row.must:g} {row.unit}"


def table(rows: list[Row]) -> str:
    """Rows as a table in Markdown."""
    lines = ["| what | median | lowest … highest | must | kept | |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = f"{min(row.samples):.3g} … {max(row.samples):.3g} ({len(row.samples)})"
        lines.append(f"| {row.what} | {figure(row.value, row.unit)} | {spread} | {must(row)} | {row.verdict} | {row.note} |")
    return "\n".join(lines)


def measured_before(facts: dict[str, str]) -> dict[str, list[Row]]:
    """The figures of this machine, by bench, as they were written the last time; none when it was another."""
    try:
        found = json.loads(RESULTS.read_text())
        return {name: [Row(**row) for row in rows] for name, rows in found["benches"].items() if found["machine"] == facts}
    except (OSError, ValueError, KeyError):
        return {}


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    parser.add_argument("which", nargs="*", choices=[*BENCHES, []], help="which benches; all without")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that labs are stopped on the way out
    facts = machine() | {"sizes": "quick" if options.quick else "full"}
    figures = measured_before(facts)
    for name in options.which or BENCHES:
        figures[name] = BENCHES[name](options.quick)
        print(table(figures[name]), flush=True)
        benches = {name: [asdict(row) for row in rows] for name, rows in figures.items()}
        RESULTS.write_text(json.dumps({"machine": facts, "benches": benches}, indent=2, ensure_ascii=False))
    if options.markdown:
        rows = [row for name in BENCHES for row in figures.get(name, ())]
        lines = "".join(f"- {name}: {value}\n" for name, value in facts.items())
        options.markdown.write_text(f"{HEADER}\n## The machine\n\n{lines}\n## Figures\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
