"""`pods/log`: what a request wants of a log (core/v1 PodLogOptions), and the stream of it."""

from __future__ import annotations

import datetime
from typing import Any

from podplane.apiserver.decoding import whole_number
from podplane.apiserver.problems import Problem
from podplane.kubeapi.messages import Request, Stream
from podplane.kubeapi.streams import LogRequest, NodeStreams, StreamError

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def read(pod: dict[str, Any], streams: NodeStreams | None, request: Request, now: datetime.datetime) -> Stream:
    """The log. Problem when there is none, or the request makes no sense."""
    if streams is None:
        raise Problem("ServiceUnavailable", "this API server reaches no node")
    wanted = LogRequest(
        namespace=pod["metadata"]["namespace"],
        pod=pod["metadata"]["name"],
        container=container_of(pod, request.parameter("container")),
        follow=request.flag("follow"),
        previous=request.flag("previous"),
        since=_since(request, now),
        timestamps=request.flag("timestamps"),
        tail_lines=_number(request, "tailLines"),
        limit_bytes=_number(request, "limitBytes"),
    )
    try:
        return Stream(streams.logs(wanted), content_type="text/plain")
    except StreamError as error:
        raise Problem("BadRequest", str(error)) from None


def container_of(pod: dict[str, Any], name: str) -> str:
    """The container that is meant: by name, or the only one. Problem when that is not clear."""
    spec, pod_name = pod["spec"], pod["metadata"]["name"]
    mains = [container["name"] for container in spec["containers"]]
    others = [*spec.get("initContainers", ()), *spec.get("ephemeralContainers", ())]
    everyone = mains + [container["name"] for container in others]
    if not name and len(mains) == 1:
        return str(mains[0])
    if not name:
        raise Problem(
            "BadRequest", f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(everyone)}]"
        )
    if name not in everyone:
        raise Problem("BadRequest", f"container {name} is not valid for pod {pod_name}")
    return name


def _number(request: Request, name: str) -> int | None:
    text = request.parameter(name)
    return whole_number(name, text) if text else None


def _since(request: Request, now: datetime.datetime) -> datetime.datetime | None:
    seconds, time = request.parameter("sinceSeconds"), request.parameter("sinceTime")
    if seconds and time:
        raise Problem("BadRequest", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if seconds:
        return now - datetime.timedelta(seconds=whole_number("sinceSeconds", seconds))
    if not time:
        return None
    try:
        found = datetime.datetime.fromisoformat(time)
    except ValueError:
        raise Problem("BadRequest", f"sinceTime {time!r} is no time as RFC 3339 writes it") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
