"""Derive the numbers that fields have on the wire (protobuf) from the published Go types of Kubernetes.

    python -m tools.wire GO_TYPES_FOLDER > podplane/apiserver/data/wire.json

The folder has one file a group, named like its OpenAPI definitions (io.k8s.api.core.v1.go, …), with the types.go of the repositories
kubernetes/api, kubernetes/apimachinery and kubernetes/apiextensions-apiserver. Of these, only the struct tags are read: JSON name, number,
and whether the field is a pointer (a zero that is said) or not (a zero means nothing).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from podplane.apiserver import shapes

STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\t([^`/\n]+?)\s+`([^`]*)`", re.MULTILINE)
JSON_TAG, WIRE_TAG = re.compile(r'json:"([^,"]*)'), re.compile(r'protobuf:"\w+,(\d+)')
BRANCH = "release-1.36"


def fields(body: str) -> dict[str, str]:
    """Number → JSON name; with * before it for a pointer, = and the name of the struct for what is inlined."""
    found: dict[str, str] = {}
    for words, tag in FIELD.findall(body):
        name, number, kind = JSON_TAG.search(tag), WIRE_TAG.search(tag), words.split()[-1]
        if name is None or number is None or name[1] == "-":
            continue
        if name[1] == "":
            found[number[1]] = "=" + kind.lstrip("*")
        else:
            found[number[1]] = ("*" if kind.startswith("*") else "") + name[1]
    return found


def structs(folder: Path) -> dict[str, dict[str, str]]:
    """All structs with numbers, by the name of their definition."""
    return {
        f"{path.stem}.{match[1]}": numbers
        for path in sorted(folder.glob("*.go"))
        for match in STRUCT.finditer(path.read_text())
        if (numbers := fields(match[2]))
    }


def main(folder: str) -> None:
    """Write the data file to standard output, a struct a line."""
    known = structs(Path(folder))
    wanted: dict[str, dict[str, str]] = {}
    todo = list(shapes.builtin().definitions)
    while todo:
        name = todo.pop()
        if name in known and name not in wanted:
            wanted[name] = known[name]
            group = name.rpartition(".")[0]
            todo += [f"{group}.{text[1:]}" for text in known[name].values() if text.startswith("=")]
    head = {
        "origin": [
            f"https://github.com/kubernetes/{name}/tree/{BRANCH}" for name in ("api", "apimachinery", "apiextensions-apiserver")
        ],
        "licence": "Apache-2.0, Copyright The Kubernetes Authors",
        "made by": "tools/wire.py: numbers and names out of the struct tags",
    }
    lines = [f"{json.dumps(name)}: {json.dumps(wanted[name], separators=(',', ':'))}" for name in sorted(wanted)]
    print(json.dumps(head, indent=0)[:-2] + ',\n"structs": {\n' + ",\n".join(lines) + "\n}}")


if __name__ == "__main__":
    main(*sys.argv[1:])
