"""Kubeconfigs of a lab: its own file, and its entries in the user's file (clientcmd/api/v1 Config)."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import msgspec

from podplane.lab.errors import LabError
from podplane.lab.folder import Endpoint, Folder, write_private

Document = dict[str, Any]
KINDS = ("clusters", "contexts", "users")


def entry_name(folder: Folder) -> str:
    """The name of a lab's cluster, context and user."""
    return f"podplane-{folder.name}"


def document(folder: Folder, endpoint: Endpoint) -> Document:
    """The kubeconfig of a lab, with all that it needs inside."""
    name = entry_name(folder)
    authority = base64.b64encode(endpoint.ca.encode()).decode()
    server = f"https://{endpoint.host}:{endpoint.port}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": {"token": endpoint.token}}],
        "current-context": name,
    }


def write(folder: Folder, endpoint: Endpoint) -> None:
    """Write the lab's own kubeconfig (JSON, which is YAML)."""
    found = document(folder, endpoint)
    write_private(folder.kubeconfig, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def users_file() -> Path:
    """Where kubectl keeps its settings: the first file of $KUBECONFIG, or ~/.kube/config."""
    named = [path for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    return Path(named[0]) if named else Path(os.path.expanduser("~"), ".kube", "config")


def merge(folder: Folder, path: Path) -> None:
    """Put the lab into a kubeconfig and make it the current context. LabError when that file can't be changed."""
    own = document(folder, folder.endpoint())
    there = _load(path)
    for kind in KINDS:
        entries = [entry for entry in there.get(kind) or [] if entry.get("name") != entry_name(folder)]
        there[kind] = entries + own[kind]
    there = {"apiVersion": "v1", "kind": "Config"} | there | {"current-context": own["current-context"]}
    _save(path, there)


def remove(folder: Folder, path: Path) -> bool:
    """Take the lab out of a kubeconfig; True when it was there."""
    there = _load(path)
    name, found = entry_name(folder), False
    for kind in KINDS:
        entries = there.get(kind) or []
        kept = [entry for entry in entries if entry.get("name") != name]
        found |= len(kept) != len(entries)
        there[kind] = kept
    if found:
        if there.get("current-context") == name:
            there["current-context"] = ""
        _save(path, there)
    return found


def _load(path: Path) -> Document:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"the kubeconfig {path} can't be read ({error}): mend it, or set KUBECONFIG to another file") from None
    if found is None:
        return {}
    lists = isinstance(found, dict) and all(isinstance(found.get(kind) or [], list) for kind in KINDS)
    if not lists or any(not isinstance(entry, dict) for kind in KINDS for entry in found.get(kind) or []):
        raise LabError(f"the file {path} is no kubeconfig: mend it, or set KUBECONFIG to another file")
    return dict(found)


def _save(path: Path, found: Document) -> None:
    import yaml

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = path.resolve()  # a link stays a link
        write_private(target, yaml.safe_dump(found, sort_keys=False, allow_unicode=True).encode())
    except OSError as error:
        raise LabError(f"the kubeconfig {path} can't be written ({error.strerror}): set KUBECONFIG to another file") from None
