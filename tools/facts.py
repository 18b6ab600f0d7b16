"""Make objects of all served kinds, strange but readable, and record what Kubernetes' own types make of them.

    cd tools/reference && go build -o /tmp/reference . && cd ../..
    python -m tools.facts objects SEED NUMBER | /tmp/reference | python -m tools.facts pack > tests/unit/apiserver/data/objects.jsonl.gz

`objects` writes NUMBER objects of each kind, a line each, by the published shapes; `/tmp/reference` (Go) says of each how a typed client
sends it, how Go's JSON encoder writes it, and how kube-apiserver answers with it; `pack` keeps what the tests need. The objects are not
valid: defaults are filled in before anything is validated. The same seed gives the same objects.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import sys
from collections import Counter
from typing import Any

from podplane.apiserver import shapes
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.shapes import Shape
from podplane.apiserver.writing import BINDING, EVICTION, SCALE

LEFT_OUT = ("managedFields", "selfLink", "stringData")
"""Fields that the server takes away or turns into others."""
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
DEPTH = 12
TEXTS = ("", "a", "web", "x-é", "a b", "9", "None")
IMAGES = ("", "nginx", "nginx:latest", "nginx:1.2", "host:5000/nginx", "host:5000/nginx:1", "nginx@sha256:" + "0" * 64)
QUANTITIES = (
    *("0", "1", "100m", "0.5", "1.5", "1.5Gi", "1024Ki", "2048Mi", "1000", "1000k", "1e3", "1E3", "12e6", "0.0001", "1.1m"),
    *("-1", "-1.5Gi", "+3", "1000000", "1Ei", "3n", "1100u", "0.1Ki", ".5", "5.", "1e-3", "9223372036854775807", "9Ei", 3, 0.1),
)
TIMES = ("2026-01-02T03:04:05Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:01Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:58Z")
MICRO = (
    "2026-01-02T03:04:05.000000Z",
    "2026-01-02T03:04:05.678901Z",
    "1969-12-31T23:59:58.500000Z",
    "0001-01-01T00:00:00.000001Z",
)
NUMBERS = {"int32": (0, 1, 7, -1, 2**31 - 1, -(2**31)), "int64": (0, 1, 7, -1, 2**63 - 1, -(2**63))}
FREE = ({}, {"a": 1}, {"a": [1, None, {"b": ""}], "c": 0.5, "d": False})
CHOICES: dict[str, tuple[Any, ...]] = {
    "image": IMAGES,
    "scheme": ("", "HTTP", "HTTPS"),
    "backoffLimit": (0, 3),
    "pathType": ("Exact", "Prefix"),
    "hostNetwork": (True, False),
}
"""Values of fields whose shape doesn't say them, by the field's name."""
TYPES: dict[str, tuple[str, ...]] = {
    "StatefulSetUpdateStrategy": ("", "RollingUpdate", "OnDelete"),
    "AppArmorProfile": ("RuntimeDefault", "Unconfined"),
    "SeccompProfile": ("RuntimeDefault", "Unconfined"),
    "Secret": ("", "Opaque", "kubernetes.io/tls"),
    "HostPathVolumeSource": ("", "Directory"),
}
"""Values of `type`, by the definition that has it."""


class Maker:
    """Makes values by their shapes, as the random numbers say; a field that was not made yet comes first."""

    def __init__(self, seed: int, made: Counter[tuple[str, str]]) -> None:
        self._random = random.Random(seed)
        self._made = made

    def value(self, shape: Shape, name: str = "", owner: str = "", depth: int = 0) -> Any:
        """A value of the shape, which the field `name` of the definition `owner` has."""
        pick = self._random.choice
        if shape.kind == shapes.ANY and depth < DEPTH:
            return self._free(shape, depth)
        if name == "type" and owner in TYPES:
            return pick(TYPES[owner])
        if name in CHOICES and shape.kind in (shapes.STRING, shapes.BOOLEAN, shapes.INTEGER):
            return pick(CHOICES[name])
        match shape.kind:
            case shapes.OBJECT:
                return self._object(shape, depth)
            case shapes.LIST | shapes.MAP:
                made = (
                    [
                        self.value(shape.items, "", owner, depth + 1)
                        for _ in range(4 if name == "volumes" else pick((0, 1, 1, 2)))
                    ]
                    if shape.items
                    else []
                )
                return made if shape.kind == shapes.LIST else dict(zip(("a", "example.com/b"), made, strict=False))
            case shapes.STRING:
                return self._text(shape)
            case shapes.INTEGER:
                return pick(NUMBERS.get(shape.format, NUMBERS["int64"]))
            case shapes.NUMBER:
                return pick((0, 1, -2, 0.5, 1e21, -1.25e-9))
            case shapes.BOOLEAN:
                return pick((True, False))
            case shapes.INT_OR_STRING:
                return pick((0, 80, -3, "http", "25%", ""))
            case shapes.QUANTITY:
                return pick(QUANTITIES)
            case _:
                return pick(FREE)

    def _free(self, shape: Shape, depth: int) -> Any:
        """What may be of several types: JSON, and the alternatives of schemas of custom resources."""
        own, schema = shape.definition.rpartition(".")[2], shapes.builtin().shape(EXTENSIONS + "JSONSchemaProps")
        pick, one = self._random.choice, self._object(schema, depth + 2)
        match own:
            case "JSONSchemaPropsOrBool":
                return pick((True, False, one))
            case "JSONSchemaPropsOrArray":
                return pick(([], [one], one))
            case "JSONSchemaPropsOrStringArray":
                return pick((["a"], ["a", ""], one))
        return pick((*FREE, 1, "x-é", 0.5, True, [1, "a"]))

    def _text(self, shape: Shape) -> Any:
        pick = self._random.choice
        if shape.enum:
            return pick(shape.enum)
        match shape.format:
            case "date-time":
                return pick(MICRO if shape.definition.endswith("MicroTime") else TIMES)
            case "byte":
                return pick(("", "AA==", "AP8=", "aGVsbG8="))
        return pick(TEXTS)

    def _object(self, shape: Shape, depth: int) -> dict[str, Any]:
        share = 0.9 if not depth else 0.45 if depth < 4 else 0.3 if depth < DEPTH else 0.0
        owner = shape.definition.rpartition(".")[2]
        names = [n for n in shape.fields if n not in LEFT_OUT]
        if owner in ("PodSpec", "Container"):
            share = 0.5
        if owner == "Volume":
            names = ["name", min(names, key=lambda name: self._made[owner, name])]
        found = {}
        for name in names:
            is_new = not self._made[owner, name] and depth < 2 * DEPTH
            wanted = name in shape.required and depth < DEPTH
            if is_new or self._random.random() < (0.85 if wanted else share):
                self._made[owner, name] += 1
                found[name] = self.value(shape.fields[name], name, owner, depth + 1)
        return found


def objects(seed: int, number: int) -> None:
    """Write objects of all kinds."""
    made_so_far: Counter[tuple[str, str]] = Counter()
    for row in (*RESOURCES, SCALE, BINDING, EVICTION):
        maker, shape = Maker(seed, made_so_far), row.shape()
        for _ in range(number):
            if shape is None:
                continue
            made = {**maker.value(shape), "apiVersion": row.group_version, "kind": row.kind}
            print(json.dumps(made, ensure_ascii=False, separators=(",", ":")))


def pack() -> None:
    """Pack the answers of the reference; SystemExit names what it could not read."""
    lines = [json.loads(line) for line in sys.stdin]
    if wrong := [line["error"] for line in lines if "error" in line]:
        raise SystemExit("\n".join(itertools.islice(wrong, 20)))
    text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
    sys.stdout.buffer.write(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    if sys.argv[1] == "objects":
        objects(int(sys.argv[2]), int(sys.argv[3]))
    else:
        pack()
