"""Names, labels and the rest of ObjectMeta: what they may be (apimachinery, util/validation and api/validation/objectmeta.go)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from podplane.apiserver.problems import Cause

Object = dict[str, Any]
Rule = Callable[[str], str]
"""A name → why it can't be one, or ""."""
LABEL_TEXT = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_PATTERN = re.compile(LABEL_TEXT)
LABEL_1035_PATTERN = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN_PATTERN = re.compile(rf"{LABEL_TEXT}(\.{LABEL_TEXT})*")
QUALIFIED_PATTERN = re.compile(rf"({LABEL_TEXT}(\.{LABEL_TEXT})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
VALUE_PATTERN = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
KEY_PATTERN = re.compile(r"[-._a-zA-Z0-9]+")
PORT_NAME_PATTERN = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
ENV_PATTERN = re.compile(r"[ -<>-~]+")
MAX_ANNOTATIONS_BYTES = 256 * 1024
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What generated names are made of: no vowels, so no words (apimachinery, util/rand)."""
SUFFIX_LENGTH, GENERATED_LENGTH = 5, 63


def _rule(pattern: re.Pattern[str], longest: int, why: str) -> Rule:
    return lambda name: "" if len(name) <= longest and pattern.fullmatch(name) else why


SUBDOMAIN = _rule(
    SUBDOMAIN_PATTERN, 253, "must be at most 253 lower-case letters, digits, dashes and dots (an RFC 1123 subdomain)"
)
LABEL = _rule(LABEL_PATTERN, 63, "must be at most 63 lower-case letters, digits and dashes (an RFC 1123 label)")
LABEL_1035 = _rule(
    LABEL_1035_PATTERN, 63, "must be at most 63 lower-case letters, digits and dashes, a letter first (an RFC 1035 label)"
)


def generated(prefix: str) -> str:
    """A name that begins so, cut so that it is a label still, and ends by chance (apiserver, storage/names)."""
    return prefix[: GENERATED_LENGTH - SUFFIX_LENGTH] + "".join(random.choices(ALPHABET, k=SUFFIX_LENGTH))


def SEGMENT(name: str) -> str:  # a rule like those above
    """A name that can stand in a path."""
    return "must not be . or .., nor contain / or %" if name in (".", "..") or "/" in name or "%" in name else ""


def check_metadata(metadata: Object, *, any_finalizers: bool = False) -> Iterator[Cause]:
    """Labels, annotations, finalizers, owners; finalizers of custom resources, and of their definitions, may be any qualified names."""
    yield from check_labels(metadata.get("labels", {}), "metadata.labels")
    size = 0
    for key, value in metadata.get("annotations", {}).items():
        size += len(key) + len(value)
        if not QUALIFIED_PATTERN.fullmatch(key.lower()) and not QUALIFIED_PATTERN.fullmatch(key):
            yield Cause.invalid("metadata.annotations", key, NAME_PART)
    if size > MAX_ANNOTATIONS_BYTES:
        yield Cause(
            "metadata.annotations", "FieldValueTooLong", f"Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes"
        )
    yield from check_finalizers(metadata.get("finalizers", ()), "metadata.finalizers", any_finalizers=any_finalizers)
    controllers = 0
    for i, owner in enumerate(metadata.get("ownerReferences", ())):
        for field in ("apiVersion", "kind", "name", "uid"):
            if owner.get(field) == "":
                yield Cause.required(f"metadata.ownerReferences[{i}].{field}")
        version = owner.get("apiVersion", "")
        if version.count("/") > 1 or version.endswith("/"):
            yield Cause.invalid(f"metadata.ownerReferences[{i}].apiVersion", version, "version must not be empty")
        if (version, owner.get("kind")) == ("v1", "Event"):
            why = "/v1, Kind=Event is disallowed from being an owner"
            yield Cause.invalid(f"metadata.ownerReferences[{i}]", owner, why)
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        yield Cause.invalid("metadata.ownerReferences", controllers, "only one reference can have controller set to true")


NAME_PART = (
    "must be a name of at most 63 letters, digits, '-', '_' and '.', that begins and ends with a letter or digit, "
    "with an optional DNS subdomain prefix and '/'"
)
LABEL_VALUE = "must be empty or at most 63 letters, digits, '-', '_' and '.', that begin and end with a letter or digit"


STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def check_finalizers(finalizers: Iterable[str], path: str, *, any_finalizers: bool = False) -> Iterator[Cause]:
    """Finalizers: of the built-in kinds, one that is not Kubernetes' own says whose it is (core, validateKubeFinalizerName)."""
    for i, finalizer in enumerate(finalizers):
        if not QUALIFIED_PATTERN.fullmatch(finalizer):
            yield Cause.invalid(f"{path}[{i}]", finalizer, NAME_PART)
        elif not any_finalizers and "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            yield Cause.invalid(f"{path}[{i}]", finalizer, why)


def check_labels(labels: Object, path: str) -> Iterator[Cause]:
    """Keys are qualified names, values short."""
    for key, value in labels.items():
        if not QUALIFIED_PATTERN.fullmatch(key):
            yield Cause.invalid(path, key, NAME_PART)
        if not VALUE_PATTERN.fullmatch(value):
            yield Cause.invalid(path, value, LABEL_VALUE)


def check_selector(selector: Object, path: str, *, any_values: bool = False) -> Iterator[Cause]:
    """meta/v1 LabelSelector; with `any_values` also one whose expressions have values that no label can have."""
    yield from check_labels(selector.get("matchLabels", {}), f"{path}.matchLabels")
    for i, term in enumerate(selector.get("matchExpressions", ())):
        where, operator, values = f"{path}.matchExpressions[{i}]", term.get("operator"), term.get("values", [])
        if not QUALIFIED_PATTERN.fullmatch(term.get("key", "")):
            yield Cause.invalid(f"{where}.key", term.get("key"), NAME_PART)
        if operator in ("In", "NotIn"):
            if not values:
                yield Cause.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                yield Cause.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            yield Cause.invalid(f"{where}.operator", operator, "not a valid selector operator")
        for j, value in enumerate(() if any_values else values):
            if not VALUE_PATTERN.fullmatch(value):
                yield Cause.invalid(f"{where}.values[{j}]", value, LABEL_VALUE)


def check_port(port: Any, path: str, *, named: bool = False) -> Iterator[Cause]:
    """A port's number, or where it may be `named` a name."""
    if isinstance(port, str) and named:
        if not PORT_NAME_PATTERN.fullmatch(port):
            yield Cause.invalid(
                path, port, "must be a port's name: at most 15 lower-case letters, digits and dashes, a letter among them"
            )
    elif not isinstance(port, int) or not 1 <= port <= 65535:
        yield Cause.invalid(path, port, "must be between 1 and 65535, inclusive")
