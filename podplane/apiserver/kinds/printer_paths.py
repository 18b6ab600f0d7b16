"""JSON paths of printer columns: those that Kubernetes has (client-go, util/jsonpath), and whose cost is that of the object.

python-jsonpath has more: regular expressions and functions, which may take exponential time, and paths in filters that start at the root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonpath import JSONPath

MAX_LENGTH = 1024
MAX_UNION = 16
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
ESCAPED = re.compile(r"\.((?:[^.\[\]\\]|\\.)*\\.(?:[^.\[\]\\]|\\.)*)")
"""A field with escaped characters."""
PLAIN = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_]*)+")
"""Names of fields alone: nothing to refuse, and to read it costs no import of jsonpath, which takes a start 25 ms."""


def compiled(path: str) -> JSONPath | None:
    """The path, ready to be followed; None when it can't be read or is refused."""
    found = _parsed(path)
    return None if found is None or refusal(path) else found


def first(path: JSONPath, object_: Any) -> tuple[Any, ...]:
    """The first value that the path leads to, or none."""
    import jsonpath

    try:
        found = path.match(object_)
    except jsonpath.JSONPathError:  # the object is nested deeper than a `..` follows, say
        return ()
    return () if found is None else (found.value,)


def refusal(path: str) -> str:
    """Why this path is no column of a definition; "" when it may be one. One that can't be read makes an empty column."""
    if len(path) > MAX_LENGTH:
        return f"must have at most {MAX_LENGTH} characters"
    if PLAIN.fullmatch(path):
        return ""
    found = _parsed(path)
    return "" if found is None else next(_refusals(found), "")


def _parsed(path: str) -> JSONPath | Any:
    import jsonpath  # costs a start that has no custom resources nothing

    if len(path) > MAX_LENGTH:
        return None
    quoted = ESCAPED.sub(lambda m: "['" + m[1].replace("\\", "") + "']", path)
    try:
        return jsonpath.compile("$" + quoted)
    except (jsonpath.JSONPathError, ValueError, OverflowError, RecursionError, re.error):
        return None


def _refusals(path: JSONPath | Any) -> Iterator[str]:
    from jsonpath import JSONPath, segments

    if not isinstance(path, JSONPath) or path.pseudo_root:
        yield "must be one path from the object's root"
        return
    is_descent = [isinstance(segment, segments.JSONPathRecursiveDescentSegment) for segment in path.segments]
    unions = [len(segment.selectors) for segment in path.segments if len(segment.selectors) > 1]
    if sum(is_descent) + len(unions) > 1:
        yield 'must have at most one recursive descent ("..") or union ("[a,b]"): each multiplies what is searched'
    if max(unions, default=0) > MAX_UNION:
        yield f"must have at most {MAX_UNION} members in a union"
    yield from _of_selectors(selector for segment in path.segments for selector in segment.selectors)


def _of_selectors(selectors: Iterable[Any]) -> Iterator[str]:
    from jsonpath.selectors import Filter

    for selector in selectors:
        if type(selector) is Filter:
            yield from _of_filter(selector.expression.expression)
        elif not _is_plain(selector):
            yield f"must not have {selector}: there are fields, indices, slices, wildcards and filters"


def _is_plain(selector: Any) -> bool:
    from jsonpath import selectors as kinds

    return type(selector) in (kinds.NameSelector, kinds.IndexSelector, kinds.SliceSelector, kinds.WildcardSelector)


def _of_filter(expression: Any) -> Iterator[str]:
    from jsonpath import filter as kinds

    if type(expression) is not kinds.InfixExpression:
        yield from _of_operand(expression)
    elif expression.operator not in COMPARISONS:
        yield f"must not have the operator {expression.operator} in a filter: there are {' '.join(COMPARISONS)}"
    else:
        yield from _of_operand(expression.left)
        yield from _of_operand(expression.right)


def _of_operand(operand: Any) -> Iterator[str]:
    from jsonpath import filter as kinds
    from jsonpath.segments import JSONPathChildSegment

    literals = (kinds.BooleanLiteral, kinds.StringLiteral, kinds.IntegerLiteral, kinds.FloatLiteral)
    if type(operand) in literals:
        return
    if type(operand) is not kinds.RelativeFilterQuery:
        yield "must have only paths from @, texts, numbers and booleans in a filter"
        return
    for segment in operand.path.segments:
        if type(segment) is not JSONPathChildSegment or list(map(_is_plain, segment.selectors)) != [True]:
            yield "must have only fields, indices, slices and wildcards in a path of a filter"
