"""How users name a Service: `web`, or as kubectl has it, `svc/web`."""

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


def some(names: list[str]) -> str:
    """Names, the first and the last of many."""
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} … {names[-1]}"
