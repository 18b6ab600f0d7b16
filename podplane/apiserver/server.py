"""The API server's core: a request in, an answer out. Authentication, routing, verbs; no HTTP library.

    handle(Request) → who is it → which resource, name, subresource → verb → store, hub → Response | Stream | Upgrade

Reads are answered from memory; a write is one transaction, and published to the watches when it is on disk.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from podplane import __version__
from podplane.apiserver import selectors
from podplane.apiserver.admission import BUILT_IN_NAMESPACES, DEFAULT_GRACE_SECONDS, Admission
from podplane.apiserver.problems import Problem, not_found
from podplane.apiserver.resources import BY_PLURAL, RESOURCES, Resource, check_fixed, check_name, check_object
from podplane.apiserver.store import Key, Store, Stored
from podplane.apiserver.streams import converse
from podplane.apiserver.watch import Change, Hub
from podplane.cluster.channels import PROTOCOL
from podplane.cluster.messages import JSON, MERGE_PATCH, Answer, Messages, Request, Response, Stream, Upgrade
from podplane.cluster.streams import ExecRequest, NodeStreams, StreamError

log = logging.getLogger(__name__)
Object = dict[str, Any]
MAX_BODY_BYTES = 3 * 1024 * 1024
"""As the real API server limits a request."""
MAX_DIGITS, MAX_GRACE_SECONDS = 18, 10 * 365 * 86400
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
"""What needs no token."""
Authenticate = Callable[[str], str | None]
"""A bearer token → the user's name, or None for a token that is nobody's."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a path means: a collection when there is no name."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """Where the store has the object."""
        return self.namespace, self.name


def parse_path(path: str) -> Target | None:
    """The target of a path in the core group; None for any other path."""
    parts = [part for part in path.split("/") if part]
    if parts[:2] != ["api", "v1"] or len(parts) < 3:
        return None
    parts, namespace = parts[2:], ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] in BY_PLURAL and BY_PLURAL[parts[2]].namespaced:
        namespace, parts = parts[1], parts[2:]
    resource = BY_PLURAL.get(parts[0])
    if resource is None or len(parts) > 3:
        return None
    name, subresource = (*parts[1:], "", "")[:2]
    return Target(resource, namespace, name, subresource)


class ApiServer:
    """The API over one store."""

    def __init__(
        self,
        store: Store,
        admission: Admission,
        authenticate: Authenticate,
        streams: NodeStreams | None = None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._store = store
        self._admission = admission
        self._authenticate = authenticate
        self.streams = streams
        self._now = now
        self._hub = Hub(store.version)

    def bootstrap(self) -> None:
        """Make the namespaces that every cluster has."""
        for name in BUILT_IN_NAMESPACES:
            if self._store.get("namespaces", ("", name)) is None:
                target = Target(BY_PLURAL["namespaces"])
                self._create(target, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def together(self) -> Any:
        """One transaction around many writes by direct calls."""
        return self._store.together()

    async def handle(self, request: Request) -> Answer:
        """Answer a request; refusals are Status objects."""
        try:
            if request.path in OPEN_PATHS:
                return self._open(request.path)
            self._user(request)
            return self._route(request)
        except Problem as problem:
            return problem.response()
        except Exception:
            log.exception("request method=%s path=%s", request.method, request.path)
            return Problem("InternalError", "the API server failed at this request; its log says how").response()

    def _open(self, path: str) -> Response:
        if path == "/version":
            major, minor = "1", "33"
            version = {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0+podplane.{__version__}"}
            return Response(200, msgspec.json.encode(version))
        return Response(200, b"ok", "text/plain")

    def _user(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user = self._authenticate(token) if scheme.lower() == "bearer" and token else None
        if user is None:
            raise Problem("Unauthorized", "Unauthorized: send the token of this lab as a bearer token")
        return user

    def _route(self, request: Request) -> Answer:
        if request.path.rstrip("/") in ("/api", "/api/v1"):
            return Response(200, msgspec.json.encode(discovery(request.path.rstrip("/"))))
        target = parse_path(request.path)
        if target is None:
            raise Problem("NotFound", f"the server could not find the requested resource: {request.path}")
        if request.parameter("dryRun"):
            raise Problem("BadRequest", "dryRun is not served yet: nothing was done")
        if len(request.body) > MAX_BODY_BYTES:
            raise Problem("RequestEntityTooLarge", f"the request is larger than {MAX_BODY_BYTES} bytes")
        if target.subresource == "exec" and target.resource.plural == "pods" and request.method in ("GET", "POST"):
            return self._exec(target, request)
        if target.subresource not in ("", "status"):
            raise Problem("NotFound", f"the subresource {target.subresource} of {target.resource.plural} is not served")
        match request.method, bool(target.name):
            case "GET", False:
                return self._watch(target, request) if request.flag("watch") else self._list(target, request)
            case "GET", True:
                return Response(200, self._get(target).raw)
            case "POST", False if target.namespace or not target.resource.namespaced:
                return self._stored(201, self._create(target, _object(request)))
            case "PUT", True:
                return self._stored(200, self._update(target, _object(request)))
            case "PATCH", True:
                return self._stored(200, self._patch(target, request))
            case "DELETE", True if not target.subresource:
                return self._delete(target, request)
        raise Problem("MethodNotAllowed", f"{request.method} is not served for {request.path}")

    @staticmethod
    def _stored(status: int, stored: Stored) -> Response:
        return Response(status, stored.raw)

    # Reading.

    def _get(self, target: Target) -> Stored:
        if stored := self._store.get(target.resource.plural, target.key):
            return stored
        raise not_found(target.resource.plural, target.name)

    @staticmethod
    def _selection(target: Target, request: Request) -> selectors.Predicate | None:
        label, field = request.parameter("labelSelector"), request.parameter("fieldSelector")
        return selectors.both(
            selectors.labels(label) if label else None,
            selectors.fields(field, target.resource.fields) if field else None,
        )

    def _list(self, target: Target, request: Request) -> Response:
        wanted = self._selection(target, request)
        found = self._store.all(target.resource.plural, target.namespace)
        items = b",".join(stored.raw for stored in found if wanted is None or wanted(stored.object))
        head = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.version}
        head["metadata"] = {"resourceVersion": str(self._store.version)}  # type: ignore[assignment]  # built up
        return Response(200, msgspec.json.encode(head)[:-1] + b',"items":[' + items + b"]}")

    def _watch(self, target: Target, request: Request) -> Stream:
        wanted = self._selection(target, request)
        version = request.parameter("resourceVersion")
        since = _number("resourceVersion", version or "0") or self._store.version
        seconds = _seconds(request.parameter("timeoutSeconds") or "0") or None
        bookmarks = target.resource.kind if request.flag("allowWatchBookmarks") else ""
        lines = self._hub.open(target.resource.plural, target.namespace, wanted, since, seconds, bookmarks)
        if version in ("", "0"):  # "get state and start at any"
            return Stream(_preceded(self._present(target, wanted), lines))
        return Stream(lines)

    def _present(self, target: Target, wanted: selectors.Predicate | None) -> bytes:
        found = self._store.all(target.resource.plural, target.namespace)
        return b"".join(
            b'{"type":"ADDED","object":%s}\n' % stored.raw for stored in found if wanted is None or wanted(stored.object)
        )

    # Writing.

    def _publish(self, target: Target, kind: str, new: Stored, old: Object | None) -> None:
        self._hub.publish(Change(self._store.version, target.resource.plural, kind, new, old))

    def _create(self, target: Target, object_: Object) -> Stored:
        resource = target.resource
        metadata = object_.setdefault("metadata", {})
        _check_kind(resource, object_)
        if not metadata.get("name") and isinstance(metadata.get("generateName"), str):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        name = check_name(resource, metadata.get("name"))
        namespace = self._namespace_of(target, metadata)
        key = (namespace, name)
        if self._store.get(resource.plural, key) is not None:
            raise Problem("AlreadyExists", f'{resource.plural} "{name}" already exists')
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"):
            metadata.pop(field, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = self._timestamp()
        check_object(resource, object_)
        self._admission.create(resource, object_)
        stored = self._store.put(resource.plural, key, object_)
        self._admission.created(resource, object_)
        self._publish(target, "ADDED", stored, None)
        return stored

    @staticmethod
    def _namespace_of(target: Target, metadata: Object) -> str:
        """The namespace of a new object, said by the path; one in the object must be the same."""
        if not target.resource.namespaced:
            metadata.pop("namespace", None)
            return ""
        said = metadata.get("namespace") or target.namespace
        if said != target.namespace:
            raise Problem("BadRequest", f"the namespace of the object ({said}) is not that of the request ({target.namespace})")
        metadata["namespace"] = target.namespace
        return target.namespace

    def _update(self, target: Target, new: Object) -> Stored:
        return self._replace(target, self._get(target), new)

    def _patch(self, target: Target, request: Request) -> Stored:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if content_type != MERGE_PATCH:
            raise Problem("UnsupportedMediaType", f"patches are served as {MERGE_PATCH}, not as {content_type or 'nothing'}")
        stored = self._get(target)
        return self._replace(target, stored, merge(stored.object, _object(request)))

    def _replace(self, target: Target, stored: Stored, new: Object) -> Stored:
        """Store a new version, if it is one: an update that changes nothing keeps the version and tells nobody."""
        old = stored.object
        _check_kind(target.resource, new)
        metadata = new["metadata"]
        self._check_same(target, old["metadata"], metadata)
        if target.subresource == "status":
            new = {**old, "status": new.get("status", {})}
        else:
            kept = {f: old["metadata"][f] for f in SERVER_FIELDS if f in old["metadata"]}
            new["metadata"] = {**{k: v for k, v in metadata.items() if k not in SERVER_FIELDS}, **kept}
            if "status" in old:
                new["status"] = old["status"]
        check_object(target.resource, new)
        check_fixed(target.resource, old, new)
        if new == old:
            return stored
        new["metadata"] = dict(new["metadata"])
        replaced = self._store.put(target.resource.plural, target.key, new)
        self._admission.replaced(target.resource, old, new)
        self._publish(target, "MODIFIED", replaced, old)
        return replaced

    @staticmethod
    def _check_same(target: Target, old: Object, new: Object) -> None:
        if new.setdefault("name", target.name) != target.name:
            raise Problem("BadRequest", f"the name of the object ({new['name']}) is not that of the request ({target.name})")
        if not new.get("namespace"):
            new.pop("namespace", None)
        elif new["namespace"] != target.namespace:
            raise Problem(
                "BadRequest",
                f"the namespace of the object ({new['namespace']}) is not that of the request ({target.namespace})",
            )
        for field in ("resourceVersion", "uid"):
            if new.get(field) and new[field] != old[field]:
                message = "the object has been modified; please apply your changes to the latest version"
                where = f'{target.resource.plural} "{target.name}"'
                raise Problem("Conflict", f"Operation cannot be fulfilled on {where}: {message}")

    # Deleting.

    def _delete(self, target: Target, request: Request) -> Response:
        stored = self._get(target)
        options = _object(request) if request.body else {}
        if request.parameter("gracePeriodSeconds"):
            options["gracePeriodSeconds"] = request.parameter("gracePeriodSeconds")
        _check_preconditions(target, options.get("preconditions"), stored.object["metadata"])
        match target.resource.plural:
            case "pods" if (seconds := _grace(stored.object, options)) and self._is_on_a_node(stored.object):
                marked = self._mark_deleted(target, stored, seconds)
                return Response(200, marked.raw)
            case "namespaces":
                return self._delete_namespace(target, stored)
        return Response(200, self._remove(target).raw)

    def _is_on_a_node(self, pod: Object) -> bool:
        """Is there a node that ends this pod?"""
        return self._store.get("nodes", ("", pod["spec"].get("nodeName", ""))) is not None

    def _mark_deleted(self, target: Target, stored: Stored, seconds: int) -> Stored:
        """The node is to end the pod within so many seconds; a second request may only shorten that."""
        metadata = stored.object["metadata"]
        if metadata.get("deletionGracePeriodSeconds", seconds + 1) <= seconds:
            return stored
        at = self._now() + datetime.timedelta(seconds=seconds)
        new = {**stored.object, "metadata": {**metadata, "deletionTimestamp": _text(at), "deletionGracePeriodSeconds": seconds}}
        marked = self._store.put(target.resource.plural, target.key, new)
        self._publish(target, "MODIFIED", marked, stored.object)
        return marked

    def _remove(self, target: Target) -> Stored:
        old = self._get(target).object
        gone = self._store.remove(target.resource.plural, target.key)
        self._admission.removed(target.resource, old)
        self._publish(target, "DELETED", gone, old)
        self._finish_namespace(target.namespace)
        return gone

    def _delete_namespace(self, target: Target, stored: Stored) -> Response:
        """Its objects go first; with the last of them it is gone."""
        if target.name in BUILT_IN_NAMESPACES:
            raise Problem("Forbidden", f'namespaces "{target.name}" is forbidden: this namespace may not be deleted')
        if "deletionTimestamp" not in stored.object["metadata"]:
            metadata = {**stored.object["metadata"], "deletionTimestamp": self._timestamp()}
            new = {**stored.object, "metadata": metadata, "status": {"phase": "Terminating"}}
            marked = self._store.put(target.resource.plural, target.key, new)
            self._publish(target, "MODIFIED", marked, stored.object)
            stored = marked
        for resource in RESOURCES:
            for inner in self._store.all(resource.plural, target.name) if resource.namespaced else ():
                inside = Target(resource, target.name, inner.object["metadata"]["name"])
                self._delete(inside, Request("DELETE", ""))
        self._finish_namespace(target.name)
        return Response(200, stored.raw)

    def _finish_namespace(self, name: str) -> None:
        stored = self._store.get("namespaces", ("", name)) if name else None
        if stored is None or "deletionTimestamp" not in stored.object["metadata"]:
            return
        if any(self._store.all(resource.plural, name) for resource in RESOURCES if resource.namespaced):
            return
        target = Target(BY_PLURAL["namespaces"], "", name)
        gone = self._store.remove("namespaces", target.key)
        self._publish(target, "DELETED", gone, stored.object)

    # Streams.

    def _exec(self, target: Target, request: Request) -> Upgrade:
        if not request.upgrade:
            raise Problem("BadRequest", f"this request needs an upgrade to a WebSocket of the sub-protocol {PROTOCOL}")
        pod = self._get(target).object
        if self.streams is None:
            raise Problem("ServiceUnavailable", "this API server reaches no node")
        command = request.query.get("command", [])
        if not command:
            raise Problem("BadRequest", "you must specify at least one command for the container")
        wanted = ExecRequest(
            namespace=target.namespace,
            pod=pod["metadata"]["name"],
            container=request.parameter("container"),
            command=command,
            stdin=request.flag("stdin"),
            tty=request.flag("tty"),
        )
        try:
            execution = self.streams.execute(wanted)
        except StreamError as error:
            raise Problem("BadRequest", str(error)) from None

        async def serve(messages: Messages) -> None:
            await converse(execution, messages)

        return Upgrade(PROTOCOL, serve)

    def _timestamp(self) -> str:
        return _text(self._now())


SERVER_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "namespace")
"""Metadata that only the server sets."""


def _text(at: datetime.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_preconditions(target: Target, wanted: Any, metadata: Object) -> None:
    """Conflict unless the object is still the one that is meant (meta/v1 Preconditions)."""
    if not isinstance(wanted, dict | None):
        raise Problem("BadRequest", "preconditions must be an object")
    for field in ("uid", "resourceVersion"):
        expected = (wanted or {}).get(field)
        if expected not in (None, metadata[field]):
            what = f'{target.resource.plural} "{target.name}"'
            raise Problem("Conflict", f"{what} is another one now: its {field} is {metadata[field]}, not {expected}")


def _number(name: str, text: str) -> int:
    """A parameter that is a whole number."""
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise Problem("BadRequest", f"{name} {text!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    """timeoutSeconds; fractions are taken too."""
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise Problem("BadRequest", f"timeoutSeconds {text!r} is not a number of seconds")


def _grace(pod: Object, options: Object) -> int:
    """Seconds that the pod has to end: as the request says, or as the pod says."""
    said = options.get("gracePeriodSeconds")
    if said is None:
        said = pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    return min(_number("gracePeriodSeconds", str(said)), MAX_GRACE_SECONDS)


def _object(request: Request) -> Object:
    content_type = request.headers.get("content-type", JSON).partition(";")[0].strip()
    if content_type not in (JSON, MERGE_PATCH, ""):
        raise Problem("UnsupportedMediaType", f"bodies are served as {JSON}, not as {content_type}")
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Problem("BadRequest", f"the body is not a JSON object: {error}") from None


def _check_kind(resource: Resource, object_: Object) -> None:
    """Problem unless it is an object of this kind; what is null in it counts as not said."""
    if not isinstance(object_.get("metadata"), dict):
        raise Problem("BadRequest", "metadata must be an object")
    _drop_nulls(object_)
    found = (object_.setdefault("kind", resource.kind), object_.setdefault("apiVersion", resource.version))
    if found != (resource.kind, resource.version):
        kinds = f"{found[1]} {found[0]}, expected {resource.version} {resource.kind}"
        raise Problem("BadRequest", f"the object is of another kind than the request: {kinds}")


def _drop_nulls(value: Any) -> None:
    """Remove what is null from all objects within."""
    if isinstance(value, dict):
        for name in [name for name, inner in value.items() if inner is None]:
            del value[name]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict | list):
            _drop_nulls(inner)


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386): objects are merged, null removes, anything else replaces. `target` stays as it is."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


async def _preceded(first: bytes, lines: Any) -> Any:
    if first:
        yield first
    async for line in lines:
        yield line


def discovery(path: str) -> Mapping[str, Any]:
    """The answer to /api and /api/v1."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    rows: list[dict[str, Any]] = [
        {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
            "shortNames": list(resource.short_names),
        }
        for resource in RESOURCES
    ]
    return {"kind": "APIResourceList", "groupVersion": "v1", "resources": rows}
