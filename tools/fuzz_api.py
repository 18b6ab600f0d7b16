"""Does any request make the API or a controller fail? Sends what a generator makes and spoils to a server in memory.

    .venv/bin/python -m tools.fuzz_api [--count 100000] [--seed 1] [--milliseconds 100]

The server has all controllers of a lab. Objects of all kinds (`tests.generated`, `tools.fuzz_bodies`) are made, replaced, patched, read and
deleted; many are spoilt before: a value at some place is another one, missing, of another type, or nested, a body is cut or of another
format, a path or a parameter is odd. Shown, with the number of the step, is each request that is answered with 5xx, that logs a traceback,
that takes more processor time than that, after which a controller fails, or whose object an agent or a name server can't read or takes as
long for. Ends with 1 when there is one. The same seed makes the same requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import datetime
import io
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import yaml

from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.controllers.table import controllers
from podplane.apiserver.identity import controller
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.server import utc_now
from podplane.apiserver.unforeseen import Unforeseen
from podplane.controllers.manager import Manager
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.messages import MERGE_PATCH, Request, Response, Stream
from podplane.lab import control_plane
from podplane.lab.spec import LabSpec
from podplane.lab.underlay import usual_place
from tests.generated import BY_ID, STORED, Generator
from tests.unit.apiserver.test_kinds import collection
from tests.unit.apiserver.test_server import Api
from tools import fuzz_bodies

COUNT, SEED, MILLISECONDS = 100_000, 1, 100
FORMATS = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
PATCHES = (MERGE_PATCH, "application/strategic-merge-patch+json", "application/json-patch+json")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
ODD = (
    *(
        None,
        "",
        " ",
        "a",
        "\x00",
        "ü🐍",
        "\ud800",
        "-1",
        "1e400",
        "x" * 300,
        "10.0.0.1",
        "::1",
        "10.0.0.0/8",
        "25%",
        "$(A)",
        "%s%n",
        "../..",
    ),
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1.5, -0.0, 1e308, True, False),
    *([], {}, [None], [[]], {"": None}, {"a": {"b": {"c": []}}}, [{}], ["a"] * 100, {"metadata": {"name": "a"}}),
)
"""What a value is replaced by."""
PARAMETERS = (
    *(("labelSelector", text) for text in ("a=b", "a in (b,c)", "!a", ",", "a==", "a in (", "ü=x", "a" * 300)),
    *(("fieldSelector", text) for text in ("metadata.name=a", "spec.nodeName!=x", "a=b", "=", "spec.containers[0].name=a")),
    *(("limit", text) for text in ("0", "1", "-1", "x", "99999999999999999999")),
    *(("continue", text) for text in ("x", "e30", "bnVsbA==")),
    *(("resourceVersion", text) for text in ("0", "1", "-1", "x", "99999999999999999999", "")),
    *(("resourceVersionMatch", text) for text in ("Exact", "NotOlderThan", "x")),
    *(("dryRun", text) for text in ("All", "x", "")),
    *(("fieldValidation", text) for text in ("Strict", "Warn", "Ignore", "x")),
    *(("propagationPolicy", text) for text in ("Foreground", "Background", "Orphan", "x")),
    *(("gracePeriodSeconds", text) for text in ("0", "-1", "x", "1e3", "99999999999999999999")),
    *(("watch", text) for text in ("1", "true", "x")),
    *(("timeoutSeconds", text) for text in ("0", "x", "-1", "0.5")),
    *(("sendInitialEvents", text) for text in ("true", "x")),
    *(("pretty", "x"), ("fieldManager", "ü" * 200), ("unknown", "1"), ("force", "x"), ("follow", "1"), ("tailLines", "-1")),
)
ODD_PATHS = (
    "/",
    "//",
    "/api",
    "/api/v1/",
    "/api/v1/namespaces/%00/pods",
    "/apis/apps/v1/x",
    "/openapi/v3/x",
    "/metrics",
    "/debug/x",
    "/x" * 500,
)
SUBRESOURCES = (
    "",
    "",
    "",
    "",
    "status",
    "scale",
    "binding",
    "eviction",
    "token",
    "log",
    "exec",
    "finalize",
    "ephemeralcontainers",
    "x",
)
LARGE_BYTES = 100 * 1024
"""A body of more may take longer, in proportion."""
EMPTIED_EVERY, DRAINED_EVERY = 400, 10
READ_SECONDS = 0.2
"""For an answer that comes in parts."""
MAX_DRAINS = 200


@dataclass(slots=True)
class Found:
    """What was found wrong, by kind."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    answers: Counter[int] = field(default_factory=Counter)

    def tell(self, step: int, what: str, request: Request | None, details: str) -> None:
        """Show it."""
        self.counts[what] += 1
        asked = f" {request.method} {request.path[:120]} {dict(request.query)} {request.body[:1500]!r}" if request else ""
        print(f"step {step}: {what}:{asked}\n  {details[:1500]}", flush=True)


class World(Api):
    """An API server as a lab has it, with its controllers."""

    def __init__(self) -> None:
        super().__init__()
        spec = LabSpec(name="fuzz")
        plan = spec.plan()
        for path, manifest in control_plane.bootstrap(plan, is_first=True):
            self.server.ensure(path, manifest)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for number in (1, 2):
            self.server.ensure("/api/v1/nodes", control_plane.node(usual_place(plan, number), "/", now, "host-gw"))
        view, table = StoredView(self.store, utc_now), controllers("authority", {"outside"}, control_plane.published(plan))
        clients: dict[str, tuple[Client, Recorder]] = {}
        for one in table:
            self.tokens.add(one.name, controller(one.name))
            client = Client(self.server.call, one.name)
            clients[one.name] = (client, Recorder(client, one.name, utc_now))
        self.manager = Manager(table, view, clients, self.server.transaction)
        self.server.observe(view.observe)
        self.server.observe(self.manager.observe)
        self.manager.begin()

    async def settle(self) -> None:
        """Let the controllers decide about what changed, but not for ever."""
        self.manager._take_due()
        for _ in range(MAX_DRAINS):
            if not self.manager._queue:
                return
            await self.manager._turn()
            await asyncio.sleep(0)


class Requests:
    """Requests of one source of chance."""

    def __init__(self, seed: int, api: Api) -> None:
        self.chance, self.api = random.Random(seed), api
        self.generator = Generator(self.chance, 0.25)

    def next(self) -> Request:
        """Another one."""
        makers: tuple[Callable[[], Request], ...] = (
            self._create,
            self._create,
            self._put,
            self._patch,
            self._patch,
            self._read,
            self._delete,
            self._own,
        )
        while True:
            try:
                return self._odd() if self.chance.random() < 0.05 else self.chance.choice(makers)()
            except RecursionError:  # it was spoilt until nothing here can write it
                continue

    def _request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json", accept: str = "") -> Request:
        query: dict[str, list[str]] = {"timeoutSeconds": ["0.001"]}  # a watch ends
        while self.chance.random() < 0.15:
            name, value = self.chance.choice(PARAMETERS)
            query[name] = [value]
        headers = {"authorization": "Bearer secret", "content-type": kind} | ({"accept": accept} if accept else {})
        return Request(method, unquote(path), query, headers, body)

    def _row(self) -> Resource:
        there = [BY_ID[id_] for id_ in self.api.store.resources() if id_ in BY_ID and self.api.store.count(id_)]
        return self.chance.choice(there if there and self.chance.random() < 0.7 else STORED)

    def _place(self, row: Resource) -> str:
        """An object of this kind, that is there if there is one, or its collection."""
        stored = self.api.store.all(row.id)
        name = self.chance.choice(stored).object["metadata"]["name"] if stored and self.chance.random() < 0.9 else "none"
        namespace = self.chance.choice(stored).object["metadata"].get("namespace", "default") if stored else "default"
        return f"{collection(row).replace('/default/', f'/{namespace}/')}/{name}"

    def _create(self) -> Request:
        row = self._row()
        body, kind = self._encoded(self._spoilt(self.generator.object(row)))
        return self._request("POST", collection(row), body, kind)

    def _own(self) -> Request:
        """An object of a kind of podplane's own, or the configuration of its name servers."""
        path = self.chance.choice(list(fuzz_bodies.OWN))
        made = self._spoilt(fuzz_bodies.OWN[path](self.chance))
        name = quote(str(made["metadata"].get("name")), errors="replace") if isinstance(made.get("metadata"), dict) else "p"
        body, kind = self._encoded(made)
        if self.chance.random() < 0.4:
            return self._request("POST", path, body, kind)
        if self.chance.random() < 0.5:
            return self._request("PUT", f"{path}/{name}", body, kind)
        return self._request("PATCH", f"{path}/{name}", self._cut(dumped(made)), MERGE_PATCH)

    def _put(self) -> Request:
        row = self._row()
        place, stored = self._place(row), self.api.store.all(row.id)
        sub = self.chance.choice(SUBRESOURCES)
        made = copy.deepcopy(self.chance.choice(stored).object) if stored else self.generator.object(row)
        if sub == "status" and row.has_status:
            made["status"] = self.generator.status(row)
        if self.chance.random() < 0.5:
            place = place.rpartition("/")[0] + "/" + str(made["metadata"]["name"])
        body, kind = self._encoded(self._spoilt(made))
        return self._request(self.chance.choice(("PUT", "PUT", "POST")), f"{place}/{sub}".rstrip("/"), body, kind)

    def _patch(self) -> Request:
        row, kind = self._row(), self.chance.choice(PATCHES)
        if kind == PATCHES[2]:
            patch: Any = [self._operation(row) for _ in range(self.chance.randrange(1, 6))]
        else:
            patch = {"spec": self._spoilt(self.generator.object(row)).get("spec")} if self.chance.random() < 0.6 else {}
            if row.has_status and self.chance.random() < 0.5:
                patch["status"] = self.generator.status(row)
            patch = self._spoilt(patch)
        sub = self.chance.choice(SUBRESOURCES)
        return self._request("PATCH", f"{self._place(row)}/{sub}".rstrip("/"), self._cut(dumped(patch)), kind)

    def _operation(self, row: Resource) -> Any:
        paths = list(pointers(self.generator.object(row)))
        made = {
            "op": self.chance.choice(("add", "remove", "replace", "move", "copy", "test", "x")),
            "path": self.chance.choice((*paths, "", "/", "/a/b", "/metadata/labels/-", "~", "/spec/containers/-")),
            "from": self.chance.choice((*paths, "", "/spec")),
            "value": self.chance.choice(ODD),
        }
        return self._spoilt(made) if self.chance.random() < 0.2 else made

    def _read(self) -> Request:
        row = self._row()
        path = self._place(row) if self.chance.random() < 0.5 else collection(row)
        sub = f"/{self.chance.choice(SUBRESOURCES)}" if self.chance.random() < 0.2 else ""
        return self._request(
            "GET", (path + sub).rstrip("/"), accept=self.chance.choice(("", TABLE, METADATA, "x/y", "*/*;q=x"))
        )

    def _delete(self) -> Request:
        row = self._row()
        path = self._place(row) if self.chance.random() < 0.95 else collection(row)
        options = {"preconditions": {"uid": "x"}} if self.chance.random() < 0.1 else {}
        body = dumped(self._spoilt(options)) if self.chance.random() < 0.4 else b""
        return self._request("DELETE", path, body)

    def _odd(self) -> Request:
        method = self.chance.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "X"))
        body = self.chance.randbytes(self.chance.randrange(200))
        return self._request(method, self.chance.choice(ODD_PATHS), body, self.chance.choice((*FORMATS, *PATCHES, "", "x")))

    def _spoilt(self, made: Any) -> Any:
        """With some values otherwise than they should be."""
        for _ in range(self.chance.choice((0, 0, 0, 1, 1, 2, 5))):
            places = list(holders(made))
            if not places:
                break
            holder, key = self.chance.choice(places)
            match self.chance.randrange(10):
                case 0 | 1:
                    del holder[key]
                case 2:
                    holder[key] = nested(self.chance.choice(("a", 0)), self.chance.choice((5, 150, 199, 480)))
                case 3:
                    holder[key] = [holder[key]] * self.chance.choice((1, 2, 50))
                case 4 if isinstance(holder, dict):
                    holder[str(self.chance.choice(ODD))] = copy.deepcopy(holder[key])
                case _:
                    holder[key] = copy.deepcopy(self.chance.choice(ODD))
        return made

    def _encoded(self, made: Any) -> tuple[bytes, str]:
        """In some format, most of them right."""
        kind = self.chance.choice((FORMATS[0],) * 6 + FORMATS)
        if kind == FORMATS[1]:
            try:
                return self._cut(yaml.safe_dump(made).encode("utf-8", "replace")), kind
            except (yaml.YAMLError, RecursionError):
                kind = FORMATS[0]
        if kind == FORMATS[2]:
            return self._protobuf(made), kind
        return self._cut(dumped(made)), kind

    def _protobuf(self, made: Any) -> bytes:
        """As protobuf, if such a message can say it; some with other bytes in it, else any bytes."""
        row = next(
            (row for row in STORED if made.get("kind") == row.kind and made.get("apiVersion") == row.group_version), None
        )
        if row is not None and self.chance.random() < 0.9:
            try:
                data = bytearray(fuzz_bodies.protobuf_of(made, row))
            except ValueError:
                return b"k8s\x00"
            for _ in range(self.chance.choice((0, 0, 1, 3))):
                data[self.chance.randrange(len(data))] = self.chance.randrange(256)
            return self._cut(bytes(data))
        return b"k8s\x00" + self.chance.randbytes(self.chance.randrange(100))

    def _cut(self, body: bytes) -> bytes:
        """Seldom not whole, or with other bytes in it."""
        if not body or self.chance.random() > 0.05:
            return body
        at = self.chance.randrange(len(body))
        return body[:at] if self.chance.random() < 0.5 else body[:at] + self.chance.randbytes(2) + body[at:]


def dumped(made: Any) -> bytes:
    """As JSON, which Python also writes of what is none (1e400, lone surrogates)."""
    return json.dumps(made).encode()


def nested(kind: str | int, depth: int) -> Any:
    """Objects or lists in each other."""
    made: Any = None
    for _ in range(depth):
        made = {"a": made} if kind == "a" else [made]
    return made


def holders(made: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every place in it: what holds a value, and its key."""
    if depth > 30:
        return
    keys: Any = list(made) if isinstance(made, dict) else range(len(made)) if isinstance(made, list) else ()
    for key in keys:
        yield made, key
        yield from holders(made[key], depth + 1)


def pointers(made: Any, above: str = "") -> Iterator[str]:
    """The JSON pointers of all that is in it."""
    if isinstance(made, dict):
        for key, value in made.items():
            path = f"{above}/{key}".replace("~", "~0")
            yield path
            yield from pointers(value, path)
    elif isinstance(made, list):
        for number, value in enumerate(made):
            yield f"{above}/{number}"
            yield from pointers(value, f"{above}/{number}")


class Readers:
    """Those who read what is stored: each version is read once."""

    def __init__(self) -> None:
        self._version = 0

    def wrong(self, world: World, milliseconds: float) -> Iterator[tuple[str, str]]:
        """What they can't read of what was stored since, or take too long for."""
        before, self._version = self._version, world.store.version
        for resource in world.store.resources() if self._version > before else ():
            for stored in world.store.all(resource):
                if int(stored.object["metadata"]["resourceVersion"]) <= before:
                    continue
                began = time.process_time()
                try:
                    fuzz_bodies.read_as_agents_do(resource, stored)
                except Exception as error:
                    yield "not read", f"{resource}: {error!r}\n{stored.raw[:1000]!r}"
                took = 1000 * (time.process_time() - began)
                if took > milliseconds * max(1.0, len(stored.raw) / LARGE_BYTES):
                    yield f"read for more than {milliseconds:g} ms", f"{resource}: {took:.0f} ms, {len(stored.raw)} bytes"


async def read(answer: Stream) -> None:
    """Read what there is of it: a watch may have no end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_SECONDS):
            async for _ in answer.chunks:
                pass


async def fuzz(count: int, seed: int, milliseconds: float) -> Found:
    """Send so many requests."""
    found, unforeseen = Found(), Unforeseen()
    handler, readers = logging.StreamHandler(io.StringIO()), Readers()
    handler.addFilter(unforeseen)
    logging.getLogger().addHandler(handler)
    world = World()
    requests = Requests(seed, world)
    seen = 0
    try:
        for step in range(1, count + 1):
            request = requests.next()
            began = time.process_time()
            answer = await world.server.handle(request)
            if isinstance(answer, Stream):
                await read(answer)
            took = 1000 * (time.process_time() - began)
            found.slowest = max(found.slowest, took)
            found.answers[getattr(answer, "status", 101)] += 1
            if isinstance(answer, Response) and answer.status >= 500 and answer.status not in (503, 504):
                found.tell(step, str(answer.status), request, answer.body.decode(errors="replace"))
            if took > milliseconds * max(1.0, len(request.body) / LARGE_BYTES):
                found.tell(step, f"more than {milliseconds:g} ms", request, f"{took:.0f} ms, {len(request.body)} bytes")
            for what, details in readers.wrong(world, milliseconds):
                found.tell(step, what, request, details)
            if step % DRAINED_EVERY == 0:
                await world.settle()
            if (now := sum(unforeseen.counts.values())) > seen:
                seen = now
                found.tell(step, "traceback", request, f"{unforeseen.report()['last']}\n{handler.stream.getvalue()[-1500:]}")
            handler.stream.seek(0)
            handler.stream.truncate()
            if step % EMPTIED_EVERY == 0:
                world, readers = World(), Readers()
                requests.api = world
    finally:
        logging.getLogger().removeHandler(handler)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Send them; 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_api", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--milliseconds", type=float, default=MILLISECONDS)
    given = parser.parse_args(arguments)
    found = asyncio.run(fuzz(given.count, given.seed, given.milliseconds))
    answers = ", ".join(f"{code}: {number}" for code, number in sorted(found.answers.items()))
    print(
        f"{given.count} requests: {answers}; the slowest took {found.slowest:.0f} ms; wrong: {dict(found.counts) or 'nothing'}"
    )
    return 1 if found.counts else 0


assert set(BY_ID) == {row.id for row in STORED}
if __name__ == "__main__":
    sys.exit(main())
