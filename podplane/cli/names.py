"""How users name a Service (`web`, or as kubectl has it, `svc/web`) and a pod (`web-1`, `shop/web-1`)."""

from __future__ import annotations

import re

from podplane.lab.errors import LabError

KIND = "(?:svc/|services?/)?"
NAME = "[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?"
SERVICE = re.compile(f"{KIND}(?P<name>{NAME})")


def service_name(text: str) -> str:
    """The name. LabError when this is none."""
    found = SERVICE.fullmatch(text)
    if found is None:
        raise LabError(f"{text!r} is no name of a Service: write web or svc/web, and `-n` for its namespace")
    return found["name"]


def place(pod: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a pod as users write it: `web-1`, `shop/web-1`, `pod/web-1`. LabError when it is none."""
    first, slash, rest = pod.removeprefix("pod/").removeprefix("pods/").partition("/")
    found = (first, rest) if slash else (namespace, first)
    if not all(found) or "/" in found[1]:
        raise LabError(f"{pod!r} is no pod: write web-1, or shop/web-1 for one of namespace shop")
    return found


def some(names: list[str]) -> str:
    """Names, the first and the last of many."""
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} … {names[-1]}"
