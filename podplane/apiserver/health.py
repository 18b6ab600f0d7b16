"""Health: /healthz, /livez and /readyz, and each check of them by its name (`/readyz/etcd`).

The answer is `ok`; with `?verbose`, or when a check fails, a line a check. `?exclude=NAME` leaves a check out. Source: Kubernetes,
"Kubernetes API health endpoints"; k8s.io/apiserver, pkg/server/healthz.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from podplane.kubeapi.messages import Request, Response

PATHS = ("/healthz", "/livez", "/readyz")
METHODS = ("GET", "HEAD")
Check = Callable[[], str]
"""Why it fails; "" when it doesn't."""
PLAIN = "text/plain; charset=utf-8"


def ping() -> str:
    """The server answers."""
    return ""


def answer(request: Request, checks: Mapping[str, Check]) -> Response | None:
    """The answer to a question about health; None when the request is none."""
    if request.method not in METHODS or not request.path.startswith(PATHS):
        return None
    path = request.path.rstrip("/")
    root = next((root for root in PATHS if path == root or path.startswith(f"{root}/")), "")
    if not root:
        return None
    if path == root:
        return _whole(root.strip("/"), request, checks)
    check = checks.get(path.removeprefix(f"{root}/"))
    if check is None:
        return None
    if why := check():
        return Response(500, f"internal server error: {why}\n".encode(), PLAIN)
    return Response(200, b"ok", PLAIN)


def _whole(name: str, request: Request, checks: Mapping[str, Check]) -> Response:
    """All checks but those that the client excludes."""
    excluded = set(request.query.get("exclude", ()))
    lines, failed = [], False
    for check, ask in checks.items():
        if check in excluded:
            lines.append(f"[+]{check} excluded: ok")
        elif ask():
            failed = True
            lines.append(f"[-]{check} failed: reason withheld")  # anybody may ask; who may ask more asks for the check itself
        else:
            lines.append(f"[+]{check} ok")
    if unknown := sorted(excluded - checks.keys()):
        quoted = ",".join(msgspec.json.encode(one).decode() for one in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    if failed:
        return Response(500, "\n".join([*lines, ""]).encode(), PLAIN)
    return Response(200, "\n".join([*lines, ""]).encode() if "verbose" in request.query else b"ok", PLAIN)
