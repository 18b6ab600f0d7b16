"""A container engine's part in the bench of CNI plugins: runs plugins as processes, and takes the time from start to end of each.

`python -m bench.cni_caller` reads lines of JSON from standard input, each a batch of chains, and answers each with a line:

    {"callers": 32, "chains": [{"env": {…}, "calls": [[program, configuration], …], "passes": true}, …]}
    {"seconds": 1.5, "cpu": 0.9, "each": [[milliseconds, result], …]}

The calls of a chain go one after the other. With `passes` the output of one is the `prevResult` of the next, as for ADD; without, all get
`result`. `cpu` is the processor time, in seconds, of the plugins. It runs in the network namespace of the node whose plugins it runs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PIPE_BYTES = 65536


def call(program: str, env: dict[str, str], stdin: bytes) -> bytes:
    """Run a plugin; its standard output. RuntimeError when it fails."""
    given, give = os.pipe()
    told, tell = os.pipe()
    os.write(give, stdin)  # less than a pipe takes
    os.close(give)
    actions = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, tell, 1)]
    pid = os.posix_spawn(program, [program], env, file_actions=actions)
    os.close(given)
    os.close(tell)
    output = b""
    while chunk := os.read(told, PIPE_BYTES):
        output += chunk
    os.close(told)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{program} {env['CNI_COMMAND']} {env['CNI_CONTAINERID']}: {output.decode(errors='replace')}")
    return output


def run(chain: dict[str, Any]) -> tuple[float, Any]:
    """Milliseconds, and the last result."""
    result, took = chain.get("result"), 0.0
    for program, configuration in chain["calls"]:
        stdin = json.dumps(configuration | ({"prevResult": result} if result else {})).encode()
        began = time.perf_counter()
        output = call(program, chain["env"], stdin)
        took += time.perf_counter() - began
        if chain["passes"]:
            result = json.loads(output)
    return took * 1000, result


def cpu_of_children() -> float:
    """What all that ended has used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        batch = json.loads(line)
        began, before = time.perf_counter(), cpu_of_children()
        if batch["callers"] == 1:
            each = [run(chain) for chain in batch["chains"]]
        else:
            with ThreadPoolExecutor(batch["callers"]) as pool:
                each = list(pool.map(run, batch["chains"]))
        print(json.dumps({"seconds": time.perf_counter() - began, "cpu": cpu_of_children() - before, "each": each}), flush=True)


if __name__ == "__main__":
    main()
