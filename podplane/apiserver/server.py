"""The API server's core: a request in, an answer out. No HTTP library.

    handle(Request) → who is it → health, discovery, or a resource → may they → verb → Response | Stream | Upgrade → audit

Reads are answered from memory; a write is one transaction, and published to the watches when it is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import platform
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec

from podplane import __version__
from podplane.apiserver import (
    decoding,
    discovery,
    health,
    logs,
    metrics,
    openapi,
    portforward,
    proxy_target,
    shapes,
    unforeseen,
    websockets,
)
from podplane.apiserver.admission import Admission
from podplane.apiserver.audit import AuditLog
from podplane.apiserver.beside import LARGE_BYTES, Beside, Outdated, Steps, at_once
from podplane.apiserver.decoding import MAX_BODY_BYTES, Options
from podplane.apiserver.deletion import BUILT_IN_NAMESPACES, Deleter
from podplane.apiserver.identity import ANONYMOUS, Attributes, Authorize, Tokens, User, allow_known, node_client
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.owners import foreign_owner_event
from podplane.apiserver.paths import Target, parse, unknown
from podplane.apiserver.policy_advice import Change, PolicyAdvice
from podplane.apiserver.problems import Problem
from podplane.apiserver.reading import LongList, Reader, whole
from podplane.apiserver.records import Observer, Records
from podplane.apiserver.registry import Registry
from podplane.apiserver.representation import check_whole
from podplane.apiserver.reviews import Reviews
from podplane.apiserver.seen_flows import NodesAsked
from podplane.apiserver.store import Store, Stored
from podplane.apiserver.streams import attach, execute
from podplane.apiserver.unforeseen import Unforeseen
from podplane.apiserver.watch import Hub
from podplane.apiserver.writing import Writer, is_served, no_subresource
from podplane.kubeapi.errors import Unwritable
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.kubeapi.streams import NodeStreams
from podplane.model.words import CommandLine, command_line

log = logging.getLogger(__name__)
Object = dict[str, Any]
OPEN_PATHS = (*health.PATHS, "/version")
"""What needs no token."""
ANSWERED = ("binding", "eviction", "token")
"""Subresources whose answers are no objects that are kept."""
Write = Callable[[Target, Request, Options], Steps[Stored]]
ATTEMPTS = 5
"""So often a large write begins; after that it is made in one turn."""
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
MAX_WARNING = 800
TOKEN_BYTES = 32
RETRY_SECONDS = 1
"""After a write was refused that may be taken soon."""


def utc_now() -> datetime.datetime:
    """The time."""
    return datetime.datetime.now(datetime.UTC)


class ApiServer:
    """The API over one store."""

    def __init__(
        self,
        store: Store,
        admission: Admission,
        tokens: Tokens,
        *,
        streams: NodeStreams | None = None,
        audit: AuditLog | None = None,
        errors: Unforeseen | None = None,
        authorize: Authorize = allow_known,
        now: Callable[[], datetime.datetime] = utc_now,
        command: CommandLine = command_line,
    ) -> None:
        """`command` is how users are told to call podplane."""
        self._tokens = tokens
        self._command = command
        self._node_token = secrets.token_urlsafe(TOKEN_BYTES)
        tokens.add_for_nodes(self._node_token, node_client())
        self._authorize = authorize
        self._audit = audit
        self._unforeseen = errors or Unforeseen()
        self._now = now
        self.streams = streams
        self._checks = {"ping": health.ping, "etcd": store.failure}
        self._registry = Registry(store)
        self._figures = metrics.Figures(self._registry)
        self._records = Records(store, Hub(store.version))
        self._records.observe(admission.observe)
        self._records.observe(self._registry.observe)
        self._reader = Reader(self._records, now)
        self._deleter = Deleter(self._records, self._registry, now)
        self._writer = Writer(self._records, self._reader, self._deleter, admission, now)
        self._advice = PolicyAdvice(store, ask=NodesAsked(lambda: self.streams, self._node_token), command=command)
        self._records.observe(self._advice.observe)
        self._deleter.tell = self._tell_of_owner
        self._beside = Beside()
        self._reviews = Reviews(tokens, authorize, now)

    def bootstrap(self) -> None:
        """Make the namespaces that every cluster has, and go on with what the last process was deleting."""
        self._deleter.go_on()
        for name in BUILT_IN_NAMESPACES:
            self.ensure("/api/v1/namespaces", {"metadata": {"name": name}})

    def ensure(self, path: str, object_: Object) -> None:
        """Create an object in this collection unless there is one of its name."""
        target = parse(path, self._registry)
        with contextlib.suppress(KeyError):
            there = self._records.store.get(target.resource.id, (target.namespace, object_["metadata"]["name"]))
            if there is None:
                self._writer.create(target, object_, Options(validation="Strict"))

    def _tell_of_owner(self, dependent: Object, reference: Object) -> None:
        """An Event about a reference to an owner in another namespace; nothing depends on it."""
        namespace, event = foreign_owner_event(dependent, reference, self._now())
        with contextlib.suppress(Problem):
            self._writer.create(parse(f"/api/v1/namespaces/{namespace}/events", self._registry), event, Options())

    def relieve(self) -> None:
        """Let go of what is kept for a while only; to be called every few seconds."""
        self._records.hub.age(time.monotonic())

    def observe(self, observer: Observer) -> None:
        """Tell this one of every write as it is made, and the other way round when it is taken back."""
        self._records.observe(observer)

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """A transaction: all writes by direct calls within it are stored together, or none is. Nothing may wait for the loop within it."""
        return self._records.transaction()

    async def call(self, request: Request) -> Answer:
        """Answer a request of this process, whose path is as `cluster.requests` makes it: with what HTTP would have decoded."""
        if "%" in request.path:
            request = msgspec.structs.replace(request, path=unquote(request.path))
        answer = await self.handle(request)
        return await whole(answer) if isinstance(answer, LongList) else answer

    async def handle(self, request: Request) -> Answer:
        """Answer a request; refusals are Status objects."""
        with self._figures.answering(request) as begun:
            what = Attributes(request.method.lower(), path=request.path)
            answer: Answer | None = self._open(request)
            if answer is None:
                answer, what = await self._answer_known(request, what)
            self._figures.record(request, what, answer, begun)
        return answer

    async def _answer_known(self, request: Request, what: Attributes) -> tuple[Answer, Attributes]:
        """Answer a request of somebody who has a token, and say what it wanted."""
        user = ANONYMOUS
        answer: Answer
        try:
            token, request = websockets.bearer(request)
            user = self._user(request, token)
            target = self._target(request)
            what = attributes(request, target)
            if why := self._authorize(user, what):
                raise Problem("Forbidden", f"{user.username} may not {what.verb} {request.path}: {why}")
            if target is None and (wish := proxy_target.parse(request.path)) is not None:
                from podplane.apiserver import proxy  # costs a start that passes nothing on nothing

                at = proxy_target.locate(wish, self._object)
                answer = await proxy.forward(wish, at, self.streams, request, self._node_token)
            else:
                answer = _warned(await self._answer(user, target, request), target)
            if request.upgrade and isinstance(answer, Stream):
                answer = await whole(answer) if isinstance(answer, LongList) else websockets.conversation(answer, request)
        except Problem as problem:
            answer = problem.response()
        except Unwritable as error:
            answer = _refused(error)
        except Exception:
            log.exception("request method=%s path=%s", request.method, request.path)
            answer = Problem("InternalError", "the API server failed at this request; its log says how").response()
        if self._audit is not None:
            self._audit.record(request, user, what, getattr(answer, "status", 101))
        return answer, what

    def _open(self, request: Request) -> Response | None:
        """The answer to what needs no token; None for anything else."""
        if request.method == "GET" and request.path.rstrip("/") == "/version":
            return _version()
        return health.answer(request, self._checks)

    def _user(self, request: Request, offered: str) -> User:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else offered
        user = self._tokens.user(token) if token else None
        if user is None:
            has_one = f"`{self._command('kubeconfig')}` has one"
            raise Problem("Unauthorized", f"Unauthorized: a valid bearer token is needed; {has_one}")
        return user

    def _target(self, request: Request) -> Target | None:
        """The resource that is meant; None for a path that is none of a resource."""
        if len(request.body) > MAX_BODY_BYTES:
            raise Problem("RequestEntityTooLarge", f"the request is larger than {MAX_BODY_BYTES} bytes")
        if proxy_target.parse(request.path) is not None:
            return None
        try:
            return parse(request.path, self._registry)
        except Problem:
            return None

    def _object(self, resource: str, namespace: str, name: str) -> Object:
        """An object of the core group. Problem when there is none."""
        row = self._registry.find("", "v1", resource)
        assert row is not None
        return self._reader.stored(Target(row, namespace, name)).object

    async def _answer(self, user: User, target: Target | None, request: Request) -> Answer:
        if target is None:
            if request.method == "GET" and request.path.rstrip("/") == metrics.PATH:
                return await self._measured()
            return self._describe(request)
        options = Options.of(request)
        request = await decoding.with_document(request)
        if target.resource.is_review:
            return self._review(user, target, request, options)
        if target.subresource and not is_served(target.resource, target.subresource):
            return await self._special(target, request, options)
        match request.method, bool(target.name):
            case "GET", _ if request.flag("watch") and not target.subresource:
                return self._reader.watch(target, request)
            case "GET", False:
                return await self._reader.collection(target, request)
            case "GET", True if target.subresource == "scale":
                return _json(200, self._writer.scale(target, self._reader.stored(target)))
            case "GET", True:
                return self._reader.get(target, request)
            case "POST", False if target.namespace or not target.resource.namespaced:
                return await self._write(201, target, request, self._writer.creation)
            case ("PUT" | "PATCH") as method, True:
                return await self._write(200, target, request, self._writer.update if method == "PUT" else self._writer.patch)
            case "DELETE", True if not target.subresource:
                former = self._former(target)
                answer = self._deleted(target, request, options)
                await self._advise(target, former.object if former is not None else None, None, options)
                return msgspec.structs.replace(answer, headers=_warnings(options))
            case "DELETE", False if target.namespace or not target.resource.namespaced:
                return await self._writer.delete_all(target, request, options)
        raise not_allowed(request)

    async def _write(self, code: int, target: Target, request: Request, write: Write) -> Response:
        """Answer with what a write stored, and with warnings about it."""
        stored, former, options = await self._written(target, request, write)
        await self._advise(target, former, stored.object, options, is_large=len(stored.raw) > LARGE_BYTES)
        return self._stored(code, target, request, stored, options)

    async def _written(self, target: Target, request: Request, write: Write) -> tuple[Stored, Object | None, Options]:
        """What a write stored, what was there before, and its warnings. A large one takes several turns, and begins again when others
        change what it is based on meanwhile; but not for ever."""
        for _ in range(ATTEMPTS):
            options, former = Options.of(request), self._former(target)
            if self._records.is_open or len(request.body) + (len(former.raw) if former is not None else 0) <= LARGE_BYTES:
                break
            with contextlib.suppress(Outdated):
                steps = write(target, request, options)
                stored = await self._beside.carry_out(steps, partial(self._check_served, request, target.resource))
                return stored, former.object if former is not None else None, options
            target = parse(request.path, self._registry)
        options, former = Options.of(request), self._former(target)
        return at_once(write(target, request, options)), former.object if former is not None else None, options

    def _check_served(self, request: Request, resource: Resource) -> None:
        """Outdated when another definition has this resource by now."""
        if parse(request.path, self._registry).resource != resource:
            raise Outdated

    def _former(self, target: Target) -> Stored | None:
        """An object as it is before a write."""
        return self._records.store.get(target.resource.id, target.key)

    async def _advise(
        self, target: Target, old: Object | None, new: Object | None, options: Options, *, is_large: bool = False
    ) -> None:
        """Warn of what could be written better, of mistakes in policies, and of what a dry run would change of who may talk to whom."""
        if not target.subresource:
            if new is not None:
                found = partial(list[str], target.resource.warnings(new))
                options.warnings += await self._beside.run(found) if is_large and not self._records.is_open else found()
            options.warnings += await self._advice.of(Change(target.resource.id, old, new), dry_run=options.dry_run)

    def _stored(self, code: int, target: Target, request: Request, stored: Stored, options: Options) -> Response:
        form = self._reader.form(target, request)
        body = stored.raw if target.subresource == "scale" else form.one(stored)
        return Response(code, body, headers=_warnings(options))

    def _deleted(self, target: Target, request: Request, options: Options) -> Response:
        """The object as long as it is there, or where its kind's deletions return it; else a Status that says that it is gone."""
        stored, gone = self._writer.delete(target, request, options)
        if not gone or target.resource.returns_deleted:
            return Response(200, self._reader.form(target, request).one(stored))
        details = {"name": target.name, "kind": target.resource.plural, "uid": stored.object["metadata"]["uid"]}
        if target.resource.group:
            details["group"] = target.resource.group
        head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return Response(200, msgspec.json.encode(head))

    async def _special(self, target: Target, request: Request, options: Options) -> Answer:
        """Subresources with a meaning of their own."""
        served = {name for name, *_ in discovery.subresources(target.resource)}
        if request.method == "POST" and target.subresource in ANSWERED:
            check_whole(request)
        match request.method, target.resource.id, target.subresource:
            case (("GET" | "POST"), "pods", "exec"):
                return execute(self._reader.stored(target).object, self.streams, request)
            case (("GET" | "POST"), "pods", "attach"):
                return attach(self._reader.stored(target).object, self.streams, request)
            case (("GET" | "POST"), "pods", "portforward"):
                return portforward.forward(self._reader.stored(target).object, self.streams, request)
            case "GET", "pods", "log":
                return logs.read(self._reader.stored(target).object, self.streams, request, self._now())
            case "PUT", "namespaces", "finalize":
                return await self._write(200, target, request, self._writer.update)
            case "POST", "pods", "binding":
                self._writer.bind(target, decoding.body(request), options)
            case "POST", "pods", "eviction":
                self._writer.evict(target, decoding.body(request), options)
            case "POST", "serviceaccounts", "token":
                account = self._reader.stored(target).object
                return _json(201, self._reviews.token_request(account, decoding.body(request), options))
            case _ if target.subresource in served:
                raise not_allowed(request)
            case _:
                raise no_subresource(target)
        return _json(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})

    def _review(self, user: User, target: Target, request: Request, options: Options) -> Answer:
        if request.method != "POST" or target.name:
            raise not_allowed(request)
        check_whole(request)
        return _json(201, self._reviews.answer(target.resource, user, decoding.body(request), options))

    async def _measured(self) -> Response:
        """The figures of this server, as Prometheus reads them."""
        version = msgspec.json.decode(_version().body)
        figures = self._figures, self._records.store, self._registry, self._records.hub, version, self._unforeseen.counts
        read = metrics.Metrics(*figures)
        return Response(200, await asyncio.to_thread(read.text), metrics.CONTENT_TYPE)

    def _describe(self, request: Request) -> Response:
        """What is served, and in which shapes."""
        if request.method != "GET":
            raise unknown(request.path)
        if found := discovery.find(self._registry, request.path, request):
            return Response(200, msgspec.json.encode(found[0]), found[1])
        path = request.path.strip("/")
        if path == "":
            return _json(200, {"paths": self._paths()})
        if request.path.rstrip("/") == unforeseen.PATH:
            return _json(200, self._unforeseen.report())
        if path == "openapi/v2":
            return openapi.old_document("protobuf" in request.headers.get("accept", ""))
        if path == "openapi/v3":
            return _json(200, openapi.index(self._registry))
        if path.startswith("openapi/v3/") and (document := openapi.document(self._registry, path.removeprefix("openapi/v3/"))):
            return _json(200, document)
        raise unknown(request.path)

    def _paths(self) -> list[str]:
        found = ["/api", "/api/v1", "/apis", *OPEN_PATHS, metrics.PATH, unforeseen.PATH, "/openapi/v2", "/openapi/v3"]
        found += [f"{path}/{check}" for path in health.PATHS for check in self._checks]
        for group, versions in self._registry.groups().items():
            if group:
                found += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        return sorted(found)


def attributes(request: Request, target: Target | None) -> Attributes:
    """What a request wants to do."""
    if target is None and (wish := proxy_target.parse(request.path)) is not None:
        verb = VERBS.get(request.method, request.method.lower())
        return Attributes(verb, "", "v1", wish.resource, "proxy", wish.namespace, wish.id)
    if target is None:
        return Attributes(request.method.lower(), path=request.path)
    match request.method, bool(target.name):
        case "GET", named:
            verb = "watch" if request.flag("watch") else "get" if named else "list"
        case "DELETE", named:
            verb = "delete" if named else "deletecollection"
        case method, _:
            verb = VERBS.get(method, method.lower())
    row = target.resource
    return Attributes(verb, row.group, row.version, row.plural, target.subresource, target.namespace, target.name)


def not_allowed(request: Request) -> Problem:
    """The path is served, but not this verb."""
    return Problem("MethodNotAllowed", f"{request.method} is not served for {request.path}")


def warning(text: str) -> str:
    """The value of a Warning header (RFC 7234, 5.5): its text is UTF-8, of which each byte is a character here."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text if c >= " ")[:MAX_WARNING]
    plain = shown.encode().decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{plain}"'


def _warned(answer: Answer, target: Target | None) -> Answer:
    """An answer with the warning of its kind; one that goes on has none."""
    if target is None or not target.resource.deprecation or not isinstance(answer, Response):
        return answer
    return msgspec.structs.replace(answer, headers=(*answer.headers, ("warning", warning(target.resource.deprecation))))


def _warnings(options: Options) -> tuple[tuple[str, str], ...]:
    return tuple(("warning", warning(text)) for text in options.warnings)


def _refused(error: Unwritable) -> Response:
    """Nothing can be written now. A client that heeds Retry-After tries again by itself, where that may help soon (RFC 9110, 10.2.3)."""
    if error.is_full:
        return Problem("InsufficientStorage", str(error)).response()
    answer = Problem("ServiceUnavailable", str(error), {"retryAfterSeconds": RETRY_SECONDS}).response()
    return msgspec.structs.replace(answer, headers=(("retry-after", str(RETRY_SECONDS)),))


def _json(code: int, value: Any) -> Response:
    return Response(code, msgspec.json.encode(value))


def _version() -> Response:
    major, minor = shapes.data()["kubernetes"].split(".")
    found = {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0+podplane.{__version__}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{ARCHITECTURES.get(platform.machine(), platform.machine())}",
    }
    return Response(200, msgspec.json.encode(found))


ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""As Go and so Kubernetes name them."""
