"""Kubeconfigs of a lab: its own file, and its entries in the user's file (clientcmd/api/v1 Config)."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from podplane.lab.errors import LabError
from podplane.lab.folder import Endpoint, Folder, labs, write_private

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


def files() -> list[Path]:
    """Where kubectl reads its settings, what is said first counts: the files of $KUBECONFIG, or ~/.kube/config."""
    named = [Path(path) for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    return named or [Path(os.path.expanduser("~"), ".kube", "config")]


def users_files() -> list[Path]:
    """Those of them that are the user's own, and no lab's."""
    own = {Folder.named(name).kubeconfig.resolve() for name in labs()}
    return [path for path in files() if path.resolve() not in own]


def current_context() -> tuple[str, Path | None]:
    """The context that kubectl uses, and the file that says so. LabError when one can't be read."""
    return next(((text, path) for path in files() if (text := _current(_load(path)))), ("", None))


def _current(found: Document) -> str:
    return str(found.get("current-context") or "")


def merge(folder: Folder, paths: Sequence[Path]) -> Path:
    """Put the lab into the kubeconfigs and make it the current context; the file that has it now. LabError when that can't be.

    Each change goes where kubectl makes it (clientcmd.ModifyConfig): to the file that has the entry, else to the first one that is there,
    else to the last; the current context to the first that has one.
    """
    if not paths:
        raise LabError(
            "KUBECONFIG names a lab's own file and no other, so kubectl uses it already: `unset KUBECONFIG` to merge into yours"
        )
    own, name = document(folder, folder.endpoint()), entry_name(folder)
    there = {path: _load(path) for path in paths}
    target = next((path for path in paths if _has(there[path], name)), None)
    target = target or next((path for path in paths if path.exists()), paths[-1])
    for kind in KINDS:
        entries = [entry for entry in there[target].get(kind) or [] if entry.get("name") != name]
        there[target][kind] = entries + own[kind]
    chooser = next((path for path in paths if _current(there[path])), target)
    there[chooser]["current-context"] = name
    for path in dict.fromkeys((target, chooser)):
        _save(path, {"apiVersion": "v1", "kind": "Config"} | there[path])
    return target


def _has(found: Document, name: str) -> bool:
    return any(entry.get("name") == name for kind in KINDS for entry in found.get(kind) or [])


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
        why = " ".join(str(error.strerror if isinstance(error, OSError) else error).split())
        raise LabError(f"the kubeconfig {path} can't be read ({why}): mend it, or set KUBECONFIG to another file") from None
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
        if target.exists() and not os.access(target, os.W_OK):  # a rename would not mind
            raise PermissionError(errno.EACCES, "it is read-only")
        write_private(target, yaml.safe_dump(found, sort_keys=False, allow_unicode=True).encode())
    except OSError as error:
        raise LabError(f"the kubeconfig {path} can't be written ({error.strerror}): set KUBECONFIG to another file") from None
