"""The state of a node's agent for humans: what is not as wanted first, then figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from podplane.cli import tables
from podplane.cli.names import some
from podplane.model.answers import PeerProblem
from podplane.model.words import counted, lasting
from podplane.probes.problems import sentence

Object = dict[str, Any]
LISTED = 20
"""So many refused objects, blocked keys are printed."""


def summary(found: Mapping[str, Object | None]) -> str:
    """What is wrong on any node, in one line; "" when nothing is."""
    parts = [_problem(name, summary) for name, summary in found.items()]
    bad = [part for part in parts if part]
    return "; ".join(bad[:3]) + (f"; and {counted(len(bad) - 3, 'more node')}" if len(bad) > 3 else "")


def _problem(name: str, found: Object | None) -> str:
    if found is None:
        return f"{name} does not answer"
    said = [f"{found[key]} {key}{_first(found.get(f'first_{key}', ''))}" for key in ("refused", "blocked") if found[key]]
    if found["restarts"]:
        said.append(counted(found["restarts"], "restart of a task", "restarts of tasks"))
    if found.get("api_error"):
        said.append(f"it does not reach the API ({found['api_error']})")
    if unmet := found.get("unmet"):
        said.append(unmet[0] + (f" (and {len(unmet) - 1} more)" if len(unmet) > 1 else ""))
    return f"{name}: {', '.join(said)}" if said else ""


def _first(reason: str) -> str:
    return f" ({reason})" if reason else ""


def unforeseen(found: Object, now: float) -> str:
    """Errors of the lab that nobody thought of, in one line; "" when there were none."""
    if not found["counts"]:
        return ""
    last, count = found["last"], sum(found["counts"].values())
    return f"{count} unforeseen, the last {lasting(now - last['at'])} ago: {last['message']}: {last['error']}"


def node(status: Object) -> str:
    """The state of one node."""
    if "error" in status:
        return f"Node {status['node']} does not tell its state: {status['error']}"
    wrong = [f"{status[key]} {key}" for key in ("refused", "blocked") if status[key]]
    unreached = [sentence(one) for one in msgspec.convert(status.get("unreached", []), list[PeerProblem])]
    if unmet := status.get("unmet", []):
        wrong.append(f"{len(unmet)} not as asked for")
    paths = f"; not reached as they should be: {counted(len(unreached), 'peer')}" if unreached else ""
    lines = [f"Node {status['node']}: {', '.join(wrong) if wrong else 'everything is as wanted'}{paths}"]
    lines += [f"  path     {one}" for one in unreached[:LISTED]] + _more(len(unreached), "paths")
    lines += [f"  without  {one}" for one in unmet[:LISTED]] + _more(len(unmet), "such")
    lines += _refused(status) + _blocked(status) + _objects(status["objects"]) + _peers(status.get("peers", ()))
    lines += _facts(status)
    return "\n".join(lines)


def _refused(status: Object) -> list[str]:
    lines = []
    for one in status["refused_objects"][:LISTED]:
        tried = counted(one["tries"], "try", "tries")
        lines.append(f"  refused  {one['object']}: {one['why']}")
        wanted = some(one["wanted_by"]) if one["wanted_by"] else "nobody, it is to be removed"
        lines.append(f"           wanted by {wanted}; for {_age(one['age'])}, {tried}, next in {_age(one['next_try_in'])}")
    return lines + _more(status["refused"], "refused")


def _blocked(status: Object) -> list[str]:
    lines = [f"  blocked  {one['key']} ({one['feature']}): {one['why']}" for one in status["blocked_keys"][:LISTED]]
    return lines + _more(status["blocked"], "blocked")


def _more(count: int, word: str) -> list[str]:
    return [f"           and {count - LISTED} more {word}"] if count > LISTED else []


def _objects(objects: Sequence[Object]) -> list[str]:
    rows = [
        [f"  {one['feature'] or '(not wanted)'}", one["kind"], *(str(one[key]) for key in ("done", "pending", "refused"))]
        for one in objects
    ]
    return tables.table([["  FEATURE", "OBJECTS", "DONE", "PENDING", "REFUSED"], *rows]).splitlines() if rows else []


def _peers(ways: Sequence[Object]) -> list[str]:
    """The ways to peers, those that are lost first."""
    rows = [
        [f"  {one['peer']}", one["backend"] or one["layer"], one["ip"], _state_of(one), _latency(one), _loss(one)]
        for one in sorted(ways, key=lambda one: one["state"] != "lost")
    ]
    return tables.table([["  PEER", "OVER", "ADDRESS", "STATE", "LATENCY", "LOSS"], *rows]).splitlines() if rows else []


def _state_of(way: Object) -> str:
    routes = ", routes withdrawn" if way["is_withdrawn"] and way["backend"] else ""
    return f"{way['state']} for {_age(way['age'])}{routes}"


def _latency(way: Object) -> str:
    return "-" if way["latency"] is None else f"{way['latency'] * 1000:.2f} ms"


def _loss(way: Object) -> str:
    """Of the last probes; of none there is none to tell."""
    return f"{way['loss']:.0%}" if way["probes"] else "-"


def _facts(status: Object) -> Iterable[str]:
    waiting = sum(status["dirty_keys"].values())
    yield f"  operations  {status['operations_applied']} applied, {status['operations_refused']} refused" + (
        f"; {counted(waiting, 'key waits', 'keys wait')} to be planned" if waiting else ""
    )
    for one in status.get("without_offload", ()):
        yield f"  offload     none of {one}"
    if (former := status.get("former_network")) is not None:
        yield f"  migration   {_former(former)}"
    for one in status["audits"]:
        found = "found a deviation" if one["found_deviation"] else "found nothing new"
        yield f"  audit       {one['part']}: {one['count']}, the last {_age(one['age'])} ago in {_age(one['took'])} {found}"
    if status["repaired"]:
        yield f"  repaired    {', '.join(f'{count} {kind}' for kind, count in sorted(status['repaired'].items()))}"
    for one in status["last_repairs"][-3:]:
        yield f"              {_age(one['age'])} ago: {one['what']}"
    for one in status["tasks"]:
        if one["restarts"] or not one["is_running"]:
            state = "runs again" if one["is_running"] else "waits to be started again"
            restarts = counted(one["restarts"], "restart", "restarts")
            yield f"  task        {one['name']} {state} after {restarts}: {one['last_error']}"
    yield f"  tasks       {', '.join(one['name'] for one in status['tasks'] if one['is_running'])}"
    for one in status["caches"]:
        failures = ", ".join(f"{count} {kind}" for kind, count in sorted(one["failures"].items()))
        behind = "" if one["is_synced"] else ", not current"
        yield f"  cache       {one['resource']}: {one['objects']}{behind}" + (f"; failures: {failures}" if failures else "")
    if (api := status["api"]) is not None:
        answer = "answered" if api["is_reached"] else f"did not answer ({api['error']})"
        yield f"  API         {answer} {_age(api['age'])} ago"
    if status["longest_turn"] is not None:
        yield f"  event loop  longest turn {_age(status['longest_turn'])}"


def _former(found: Object) -> str:
    """What is left of the network before podplane."""
    if not found["pods"] and not found["ports"]:
        return f"nothing is on {found['bridge']} any more"
    pods = f"{counted(len(found['pods']), 'pod')} ({some(found['pods'])})" if found["pods"] else "no pod that the API has"
    return f"on {found['bridge']} still: {pods}; {counted(found['ports'], 'port')}"


def _age(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
