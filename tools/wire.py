"""Derive how fields are written (protobuf, JSON) from the published Go types of Kubernetes.

    python -m tools.wire API APIMACHINERY APIEXTENSIONS > podplane/apiserver/data/wire.json

The folders are the Go modules k8s.io/api, k8s.io/apimachinery and k8s.io/apiextensions-apiserver (`go mod download -json` says where they
are). Only the struct tags are read: JSON name, number, whether the field is a pointer (a zero that is said) or not (a zero means nothing),
and whether JSON leaves it out when it is empty.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from podplane.apiserver import shapes

STRUCT = re.compile(r"^type (\w+) struct ?\{(?:\}|$(.*?)^\})$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\t([^`/\n]+?)\s+`([^`]*)`", re.MULTILINE)
JSON_TAG, WIRE_TAG = re.compile(r'json:"([^,"]*)([^"]*)"'), re.compile(r'protobuf:"\w+,(\d+)')
PREFIXES = ("io.k8s.api", "io.k8s.apimachinery", "io.k8s.apiextensions-apiserver")


def fields(body: str) -> dict[str, str]:
    """Number → JSON name; before it * for a pointer, ? for what is left out if it is empty, = with a struct for what is inlined."""
    found: dict[str, str] = {}
    for words, tag in FIELD.findall(body):
        name, number, kind = JSON_TAG.search(tag), WIRE_TAG.search(tag), words.split()[-1]
        if name is None or number is None or name[1] == "-":
            continue
        if name[1] == "":
            found[number[1]] = "=" + kind.lstrip("*")
        else:
            found[number[1]] = ("*" if kind.startswith("*") else "") + ("?" if ",omitempty" in name[2] else "") + name[1]
    return found


def structs(folder: Path, prefix: str) -> dict[str, dict[str, str]]:
    """All structs of a module, by the name of their definition."""
    return {
        ".".join((prefix, *path.parent.relative_to(folder).parts, match[1])): fields(match[2] or "")
        for path in sorted(folder.rglob("types*.go"))
        for match in STRUCT.finditer(path.read_text())
        if fields(match[2] or "") or "protobuf:" not in (match[2] or "")
    }


def main(*folders: str) -> None:
    """Write the data file to standard output, a struct a line."""
    known: dict[str, dict[str, str]] = {}
    for folder, prefix in zip(folders, PREFIXES, strict=True):
        known |= structs(Path(folder), prefix)
    wanted: dict[str, dict[str, str]] = {}
    todo = [name for name, schema in shapes.builtin().definitions.items() if schema.get("type") == "object"]
    while todo:
        name = todo.pop()
        if name in known and name not in wanted:
            wanted[name] = known[name]
            group = name.rpartition(".")[0]
            todo += [f"{group}.{text[1:]}" for text in known[name].values() if text.startswith("=")]
    head = {
        "origin": [f"https://pkg.go.dev/k8s.io/{Path(folder).name}" for folder in folders],
        "licence": "Apache-2.0, Copyright The Kubernetes Authors",
        "made by": "tools/wire.py: numbers, names and what is left out, by the struct tags",
    }
    lines = [f"{json.dumps(name)}: {json.dumps(wanted[name], separators=(',', ':'))}" for name in sorted(wanted)]
    print(json.dumps(head, indent=0)[:-2] + ',\n"structs": {\n' + ",\n".join(lines) + "\n}}")


if __name__ == "__main__":
    main(*sys.argv[1:])
