"""What users write after the commands about names: pods, and names. Pure."""

from __future__ import annotations

from podplane.dns.message import name_of
from podplane.lab.errors import LabError


def place(pod: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a pod as users write it: `web-1`, `shop/web-1`, `pod/web-1`. LabError when it is none."""
    first, slash, rest = pod.removeprefix("pod/").removeprefix("pods/").partition("/")
    found = (first, rest) if slash else (namespace, first)
    if not all(found) or "/" in found[1]:
        raise LabError(f"{pod!r} is no pod: write web-1, or shop/web-1 for one of namespace shop")
    return found


def check_name(name: str) -> None:
    """LabError with what is wrong when it is no name that DNS could have."""
    try:
        if not name:
            raise LabError("the name is empty: write one, or `.` for the root of all names")
        name_of(name)
    except UnicodeEncodeError:
        raise LabError(f"{name!r} has letters that DNS does not have: write it in its ASCII form (xn--…)") from None
    except ValueError as error:
        raise LabError(_in_words(name, error)) from None


def _in_words(name: str, error: ValueError) -> str:
    labels = name.removesuffix(".").split(".")
    if any(len(label) > 63 for label in labels):
        return f"{name!r} is no name: a part of it, between two dots, has more than 63 characters"
    if len(name) > 253:
        return f"{name!r} is no name: it has more than 253 characters"
    if not name.strip(".") or "" in labels:
        return f"{name!r} is no name: there is nothing between two dots, or no letter at all"
    return str(error)
