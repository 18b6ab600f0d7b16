"""Further interfaces that other plugins of CNI make: their configuration comes from a NetworkAttachmentDefinition, podplane calls them.

What was called is kept in a file for each interface, from before the first call on, so that also an agent after this one can undo it: the
plugins' own state is their business. They run in the agent's own namespaces, so only an agent that is a process of its node calls them.

Source: CNI specification 1.1.0, sections 2 to 4.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import msgspec

from podplane.cni.additional import Chain, Selection
from podplane.cni.network import Attached, Attachment, NetworkError
from podplane.cni.result import Result, attached_by
from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import Namespace
from podplane.kernel.opener import has_link, remove_link
from podplane.kernel.plugins import call

log = logging.getLogger(__name__)
CALL_SECONDS = 60.0
PREFIX = "delegated-"
"""Of the names of files."""
WORDS = 500
"""So much of what a plugin says is told."""


class Made(msgspec.Struct):
    """One interface: who it is for, what was called for it, and the result of it, once there is one."""

    container_id: str
    ifname: str
    args: str
    chain: Chain
    runtime: dict[str, Any] = {}
    result: dict[str, Any] | None = None


class Plugins:
    """Calls those in the folders of `path`; keeps what it called in `folder`."""

    def __init__(
        self,
        folder: Path,
        path: Sequence[str],
        *,
        may_enter: bool = True,
        has_link: Callable[[Namespace, str], bool] = has_link,
        remove_link: Callable[[Namespace, str], None] = remove_link,
    ) -> None:
        """`may_enter`: may they, as children of this process, enter pods' network namespaces?"""
        self._may_enter = may_enter
        self._has_link, self._remove_link = has_link, remove_link
        self._folder = folder
        self._path = tuple(path)
        self._made: dict[str, dict[str, Made]] = {}
        """By container and interface."""
        for made in self._read():
            self._made.setdefault(made.container_id, {})[made.ifname] = made

    def why_refused(self, chain: Chain, selection: Selection) -> str:
        """Why it can't be had, "" when it can, as far as that is known before a call."""
        if not self._may_enter:
            return (
                f"its type is {chain.types[0]!r}: plugins of others enter pods' namespaces, and the agent has no CAP_SYS_ADMIN"
            )
        for kind in chain.types:
            if not self._program(kind):
                return f"there is no plugin {kind} in {', '.join(self._path) or 'no folder at all'}"
        for what, asked in (("ips", selection.ips), ("mac", selection.mac)):
            if asked and not chain.has_capability(what):
                return f"{what} are asked for, and none of its plugins has the capability {what}"
        return ""

    def _program(self, kind: str) -> str:
        paths = (Path(folder) / kind for folder in self._path)
        return next((str(path) for path in paths if path.is_file() and os.access(path, os.X_OK)), "")

    async def add(self, chain: Chain, selection: Selection, request: Attachment) -> Attached:
        """Have an interface made. NetworkError when that can't be; then what was made is undone."""
        names = {"K8S_POD_NAMESPACE": request.namespace, "K8S_POD_NAME": request.name, "K8S_POD_UID": request.pod_uid}
        args = ";".join(("IgnoreUnknown=1", *(f"{key}={value}" for key, value in names.items())))
        asked: dict[str, Any] = {"ips": list(selection.ips), "mac": selection.mac}
        runtime = {name: value for name, value in asked.items() if value}
        made = Made(request.container_id, selection.ifname, args, chain, runtime)
        before = self._made.get(request.container_id, {}).get(selection.ifname)
        comes = before is not None or not await asyncio.to_thread(self._has_link, request.netns, selection.ifname)
        if before is not None:
            await self._undo(before, is_tried=True)
            await self._remove(request, selection.ifname)
        try:
            self._keep(made)
            for plugin in chain.plugins:
                made.result = await self._call("ADD", made, plugin, _path(request))
            self._keep(made)
            return attached_by(msgspec.convert(made.result, Result), selection.ifname)
        except (NetworkError, OSError, msgspec.ValidationError, StopIteration, ValueError, RecursionError) as error:
            await self._undo(made, is_tried=True)
            if comes:
                await self._remove(request, selection.ifname)
            what = "its result has no such interface" if isinstance(error, StopIteration) else error
            raise NetworkError(f"{request.who}: interface {selection.ifname} of {chain.path}: {what}") from None

    async def _remove(self, request: Attachment, ifname: str) -> None:
        """What its plugins did not undo themselves: `bridge` without its IPAM plugin leaves what it made, and does not make it anew where
        one of its name is."""
        try:
            await asyncio.to_thread(self._remove_link, request.netns, ifname)
        except (KernelError, OSError) as error:
            log.warning("undo container=%s interface=%s error=%s", request.container_id, ifname, error)

    async def delete(self, container_id: str) -> None:
        """Undo all of a container. NetworkError when a plugin can't undo what it made; it is called again with the next try."""
        for made in list(self._made.get(container_id, {}).values()):
            await self._undo(made, is_tried=made.result is None)

    async def check(self, request: Attachment) -> None:
        """NetworkError unless the plugins find their interfaces of a container as they should be."""
        for made in list(self._made.get(request.container_id, {}).values()):
            for plugin in made.chain.plugins if made.chain.has_check else ():
                await self._call("CHECK", made, plugin, _path(request))

    async def gc(self, keep: AbstractSet[str]) -> None:
        """Undo what is of none of these containers."""
        for container_id in self._made.keys() - keep:
            await self.delete(container_id)

    async def _undo(self, made: Made, *, is_tried: bool) -> None:
        """`is_tried`: what a plugin can't undo is logged, not raised. There may be nothing: its ADD never succeeded, or comes anew."""
        for plugin in reversed(made.chain.plugins):
            if self._program(str(plugin["type"])):
                try:
                    await self._call("DEL", made, plugin, "")
                except NetworkError as error:
                    if not is_tried:
                        raise
                    log.warning("undo container=%s interface=%s error=%s", made.container_id, made.ifname, error)
            else:  # the pod would never end, and what it has there goes with its namespace
                log.warning("undo container=%s interface=%s no plugin=%s", made.container_id, made.ifname, plugin["type"])
        self._file(made.container_id, made.ifname).unlink(missing_ok=True)
        own = self._made.get(made.container_id, {})
        own.pop(made.ifname, None)
        if not own:
            self._made.pop(made.container_id, None)

    async def _call(self, command: str, made: Made, plugin: dict[str, Any], netns: str) -> dict[str, Any] | None:
        kind = str(plugin["type"])
        config = {**plugin, "cniVersion": made.chain.version, "name": made.chain.name}
        if made.result is not None:
            config["prevResult"] = made.result
        capabilities = plugin.get("capabilities") or {}
        runtime = {name: value for name, value in made.runtime.items() if capabilities.get(name)}
        if runtime:
            config["runtimeConfig"] = runtime
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": made.container_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": made.ifname,
            "CNI_ARGS": made.args,
            "CNI_PATH": ":".join(self._path),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        try:
            answer = await call(self._program(kind) or kind, environment, msgspec.json.encode(config), CALL_SECONDS)
        except TimeoutError:
            raise NetworkError(f"plugin {kind} has not ended {command} in {CALL_SECONDS:g} s") from None
        except OSError as error:
            raise NetworkError(f"plugin {kind} can't be called: {error.strerror}") from None
        if answer.status:
            raise NetworkError(f"plugin {kind} has failed {command}: {_words(answer.output, answer.errors, answer.status)}")
        return _result(kind, answer.output) if command == "ADD" else made.result

    # Files.

    def _file(self, container_id: str, ifname: str) -> Path:
        return self._folder / f"{PREFIX}{_digest(container_id)}-{_digest(ifname)}.json"

    def _keep(self, made: Made) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        place = self._file(made.container_id, made.ifname)
        new = place.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(made))
        new.replace(place)
        self._made.setdefault(made.container_id, {})[made.ifname] = made

    def _read(self) -> Iterator[Made]:
        """What an agent before this one called."""
        for path in sorted(self._folder.glob(f"{PREFIX}*.json")):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=Made)
            except (OSError, msgspec.MsgspecError, RecursionError) as error:
                log.warning("read %s error=%s", path, error)


def _digest(text: str) -> str:
    """A part of a file's name for what a stranger chose."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _path(request: Attachment) -> str:
    """Of the pod's namespace, by which a child of this process finds it."""
    return f"/proc/{os.getpid()}/fd/{request.netns.fd}"


def _result(kind: str, output: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(output, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NetworkError(f"the result of plugin {kind} makes no sense: {error}") from None


def _words(output: bytes, errors: bytes, status: int) -> str:
    """What a plugin says of its failure (section 2, Error)."""
    try:
        found = msgspec.json.decode(output, type=dict[str, Any])
        text = ": ".join(str(found[name]) for name in ("msg", "details") if found.get(name))
    except (msgspec.MsgspecError, RecursionError):
        text = (errors or output).decode(errors="replace").strip()
    return " ".join(text[:WORDS].split()) or f"exit status {status}"
