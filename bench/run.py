"""Run the benches: `python -m bench.run [--quick] [--markdown FILE] [BENCH …]`.

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
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench import (
    agent_alone,
    agent_start,
    api,
    cni,
    commands,
    dns,
    factor,
    foreign_commits,
    judging,
    kube_proxy,
    live_change,
    neighbours,
    one_more_pod,
    policy,
    policy_index,
    repairs,
    report,
    routes,
    services,
    services_events,
    services_traffic,
    slim_pods,
    start_stop,
    traffic,
    withdrawal,
    workloads,
)
from bench.common import Row
from bench.judging import Factors

BENCHES = {
    "commands": commands.run,
    "dns": dns.run,
    "traffic": traffic.run,
    "neighbours": neighbours.run,
    "one_more_pod": one_more_pod.run,
    "start_stop": start_stop.run,
    "api": api.run,
    "workloads": workloads.run,
    "services": services.run,
    "services_events": services_events.run,
    "services_traffic": services_traffic.run,
    "agent_start": agent_start.run,
    "routes": routes.run,
    "withdrawal": withdrawal.run,
    "live_change": live_change.run,
    "agent_alone": agent_alone.run,
    "cni": cni.run,
    "foreign_commits": foreign_commits.run,
    "repairs": repairs.run,
    "kube_proxy": kube_proxy.run,
    "slim_pods": slim_pods.run,
    "policy_index": policy_index.run,
    "policy": policy.run,
}
RESULTS = Path(__file__).with_name("results.json")


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
    before = factor.measure()
    for name in options.which or BENCHES:
        rows = BENCHES[name](options.quick)
        after = factor.measure()
        figures[name] = with_factors(rows, before, after)
        before = after
        print(report.table(figures[name]), flush=True)
        benches = {name: [asdict(row) for row in rows] for name, rows in figures.items()}
        RESULTS.write_text(json.dumps({"machine": facts, "benches": benches}, indent=2, ensure_ascii=False))
    if options.markdown:
        every = [row for name in BENCHES for row in figures.get(name, ())]
        options.markdown.write_text(report.page(facts, every, factor.CALIBRATION))


def with_factors(rows: Sequence[Row], before: Factors, after: Factors) -> list[Row]:
    """The rows, each with the factor of its kind of work, of the factors before and after they were measured."""
    factors, steady = judging.mean([before, after]), judging.is_steady(before, after)
    return [replace(row, factor=judging.factor_of(row.work, factors), steady=steady) for row in rows]


if __name__ == "__main__":
    main()
