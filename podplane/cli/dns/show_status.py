"""The state of name servers for humans: a row for each node, and what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from podplane.cli import tables
from podplane.cli.names import some
from podplane.model.words import counted, lasting

Object = dict[str, Any]
STALE_SECONDS = 360.0
"""A watch is begun anew when nothing comes for 5 min (`kubeapi.transport`): an API that is silent for longer does not tell of changes."""
SERVICES, SLICES = "services", "endpointslices.discovery.k8s.io"


def overview(found: Sequence[Object]) -> str:
    """All nodes."""
    rows = [["NODE", "STATE", "SINCE", "RESTARTS", "SERVICES", "UPSTREAMS", "API HEARD", "ANSWERS/S"], *map(_row, found)]
    return "\n".join([tables.table(rows), *_listed(troubles(found))])


def _row(one: Object) -> list[str]:
    if "error" in one:
        return [one["node"], "no answer", *["-"] * 6]
    up = sum(server["is_up"] for server in one["upstreams"])
    return [
        one["node"],
        f"waits for {some(one['missing'])}" if one["missing"] else "answers",
        lasting(one["age"]),
        str(one["restarts"]),
        f"{_objects(one, SERVICES):,}",
        f"{up} of {len(one['upstreams'])}",
        _heard(one),
        f"{one['answers_a_second']:,.3g}" if one["answers_a_second"] < 100 else f"{one['answers_a_second']:,.0f}",
    ]


def detail(one: Object) -> str:
    """One node."""
    if "error" in one:
        return f"The name server of {one['node']} does not answer: {tables.plain(one['error'])}"
    state = f"waits for {some(one['missing'])}" if one["missing"] else "answers"
    lines = [f"The name server of {one['node']} {state}, for {lasting(one['age'])}{_restarted(one)}."]
    lines += [f"  {name:10}  {tables.plain(text)}" for name, text in _facts(one)]
    return "\n".join([*lines, *_listed(troubles([one]))])


def _restarted(one: Object) -> str:
    return f", after {counted(one['restarts'], 'restart')}" if one["restarts"] else ""


def _facts(one: Object) -> Iterator[tuple[str, str]]:
    yield "process", f"pid {one['pid']} in the lab"
    yield "zones", ", ".join(one["zones"])
    objects = ((SERVICES, "Service"), (SLICES, "EndpointSlice"), ("namespaces", "namespace"), ("pods", "pod"))
    present = {cache["resource"] for cache in one["caches"]}
    yield "answers", f"{one['answers']:,}, {one['answers_a_second']:,.1f} a second"
    yield "objects", ", ".join(counted(_objects(one, name), word) for name, word in objects if name in present)
    yield "kept", _kept(one["memory"])
    yield "API", f"heard {_heard(one)}{_reached(one)}"
    yield "config", _config(one["config"])
    for server in one["upstreams"] or ():
        yield "server", _upstream(server)
    if not one["upstreams"]:
        yield "server", "none: names outside of the cluster have no answer"


def _kept(memory: Object) -> str:
    found = f", {memory['found'] / memory['looked_for']:.0%} of {memory['looked_for']:,} found" if memory["looked_for"] else ""
    stale = f", {memory['stale']:,} too old" if memory["stale"] else ""
    kept = f"{counted(memory['responses'], 'response')} ({_bytes(memory['response_bytes'])})"
    return f"{kept}; {counted(memory['answers'], 'answer')} of other servers ({_bytes(memory['answer_bytes'])}{found}{stale})"


def _bytes(count: int) -> str:
    return f"{count / 1024:,.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"


def _config(config: Object) -> str:
    if not config["exists"]:
        return f"the defaults: there is no ConfigMap {config['config_map']}"
    return f"ConfigMap {config['config_map']}, for {lasting(config['age'])}" + ("; it is wrong now" if config["error"] else "")


def _upstream(server: Object) -> str:
    if server["is_loop"]:
        state = f"a loop, not asked: {server['error']}"
    elif not server["is_up"]:
        state = f"no answer for {lasting(server['age'])}: {server['error']}"
    elif server["round_trip"] is None:
        state = "not asked yet" if not server["asked"] else "asked, no answer yet"
    else:
        state = f"answers in {server['round_trip'] * 1000:.3g} ms"
    counts = f"; {counted(server['asked'], 'question')}, {server['failed']:,} failed" if server["asked"] else ""
    return f"{server['server']} for {_where(server)}: {state}{counts}"


def _where(server: Object) -> str:
    return "all other names" if server["zone"] == "." else str(server["zone"])


def troubles(found: Iterable[Object]) -> dict[str, list[str]]:
    """What is wrong, and on which nodes."""
    return _by_text((one["node"], text) for one in found for text in (*_wrong(one), *_wrong_elsewhere(one)))


def _by_text(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    by_text: dict[str, list[str]] = {}
    for node, text in found:
        by_text.setdefault(text, []).append(node)
    return by_text


def _listed(found: dict[str, list[str]]) -> list[str]:
    lines = [f"{some(nodes)}: {tables.plain(text)}" for text, nodes in found.items()]
    return ["", *lines] if lines else []


def _wrong(one: Object) -> Iterator[str]:
    """What is wrong with the server itself."""
    if "error" in one:
        yield one["error"] if one["error"].startswith("no answer") else f"no answer: {one['error']}"
        return
    if one["missing"]:
        yield f"it does not answer questions yet: it waits for {some(one['missing'])}"
    if error := one["config"]["error"]:
        yield f"ConfigMap {one['config']['config_map']}: {error}; {one['config']['instead']}"
    if (api := one["api"]) is not None and not api["is_reached"]:
        yield f"it does not reach the API, and answers with what it knew before: {api['error']}"
    elif one["heard_age"] is not None and one["heard_age"] > STALE_SECONDS:
        yield f"it has heard nothing of the API for more than {lasting(STALE_SECONDS)}: its answers may be old"
    for task in one["tasks"]:
        if not task["is_running"]:
            yield f"the {task['name']} waits to be started again: {task['last_error']}"


def _wrong_elsewhere(one: Object) -> Iterator[str]:
    """What is wrong with the servers that it asks."""
    if "error" in one:
        return
    for server in one["upstreams"]:
        if not server["is_up"]:
            what = "is a loop, and not asked" if server["is_loop"] else "does not answer"
            yield f"server {server['server']} for {_where(server)} {what}: {server['error']}"
    if not one["upstreams"]:
        yield "it has no other server to ask: names outside of the cluster have no answer"


def _objects(one: Object, resource: str) -> int:
    return sum(cache["objects"] for cache in one["caches"] if cache["resource"] == resource)


def _heard(one: Object) -> str:
    return "never" if one["heard_age"] is None else f"{lasting(one['heard_age'])} ago"


def _reached(one: Object) -> str:
    return "" if one["api"] is None or one["api"]["is_reached"] else f"; not reached: {one['api']['error']}"


def summary(found: Iterable[Object]) -> str:
    """What is wrong with any of them, in one line; "" when nothing is. Not that others don't answer: a lab may have no way out."""
    wrong = [
        f"{some(nodes)}: {text}" for text, nodes in _by_text((x["node"], text) for x in found for text in _wrong(x)).items()
    ]
    return tables.plain("; ".join(wrong[:2]) + (f"; and {len(wrong) - 2} more" if len(wrong) > 2 else ""))
