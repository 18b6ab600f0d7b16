"""Names that users write after the commands about them. Pure."""

from __future__ import annotations

from podplane.dns.message import name_of
from podplane.lab.errors import LabError


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
