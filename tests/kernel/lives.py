"""A machine whose agent lives, is killed and starts again, as a process of its own: the program of `podplane agent` in a fork.

Its API is a file (`FileApi`): a log of what changed, and whether the API is away. Its plugin is podplane-cni, a process for each call, as
an engine has it. Pods' network namespaces are held by processes that do nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from podplane.agent.ownership import ownership
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.kubeapi.access import Access
from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.messages import Answer, Request, Response, Stream
from podplane.machine import configuration, program
from podplane.model.pod_info import NETWORKS
from podplane.pods.plan import veth_name
from podplane.state.network import Link
from podplane.state.value import Identity, Value
from tests.kernel.test_foreign import MACHINE, VERSIONS, run
from tests.plans import node
from tests.unit.cni.fakes import configuration as stdin_of

CONFIG = {"network": {"cluster_cidrs": ["10.244.0.0/16", "fd00:10:244::/48"]}}
DENY = {"metadata": {"name": "deny", "namespace": "default", "uid": "p"}, "spec": {"podSelector": {}, "ingress": []}}
BLUE = {"spec": {"config": '{"type": "podplane", "subnets": ["10.20.0.0/24"]}'}}
"""A NetworkAttachmentDefinition: the last pod asks for it."""
LOOK_SECONDS, SOON_SECONDS = 0.02, 30.0


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for what comes about within a time that a busy machine needs, too."""
    end = time.monotonic() + SOON_SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(LOOK_SECONDS)


class Entry(msgspec.Struct):
    """One change of an API object; without an object it went."""

    resource: str
    path: str
    object: dict[str, Any] | None


class Content(msgspec.Struct):
    """What is in the file. `wall` are the seconds by which the agent's wall clock is wrong."""

    is_away: bool = False
    wall: float = 0.0
    log: list[Entry] = []


class FileApi:
    """`kubeapi.messages.Handler`: lists, and watches that look into the file again and again. All else is unknown to it."""

    skew = 0.0
    """The clock of this API is the machine's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def content(self) -> Content:
        return msgspec.json.decode(self._path.read_bytes(), type=Content)

    async def __call__(self, request: Request) -> Answer:
        content, resource = self.content(), request.path.rpartition("/")[2]
        if content.is_away:
            raise ApiError(503, "", "it is away")
        if request.method != "GET" or resource not in ("nodes", "pods", "networkpolicies"):
            items: list[Any] = []
            if request.path.endswith("/network-attachment-definitions/blue"):
                return Response(200, json.dumps(BLUE).encode())
            if request.method != "GET" or request.path.count("/") > 5:
                return Response(404, b'{"reason": "NotFound", "code": 404}')
        else:
            found: dict[str, Any] = {}
            for version, one in enumerate(content.log, 1):
                if one.resource == resource:
                    found.pop(one.path, None)
                    if one.object is not None:
                        found[one.path] = versioned(one.object, version)
            items = list(found.values())
        if request.flag("watch"):
            return Stream(self._watch(resource, int(request.parameter("resourceVersion"))))
        body = {"metadata": {"resourceVersion": str(len(content.log))}, "items": items}
        return Response(200, json.dumps(body).encode())

    async def _watch(self, resource: str, version: int) -> AsyncIterator[bytes]:
        while not (content := self.content()).is_away:
            for number, one in enumerate(content.log[version:], version + 1):
                if one.resource == resource:
                    namespace, _, name = one.path.rpartition("/")
                    gone = {"metadata": {"namespace": namespace, "name": name}}
                    kind, object_ = ("DELETED", gone) if one.object is None else ("MODIFIED", one.object)
                    yield json.dumps({"type": kind, "object": versioned(object_, number)}).encode() + b"\n"
            version = len(content.log)
            await asyncio.sleep(LOOK_SECONDS)


def versioned(object_: Mapping[str, Any], version: int) -> dict[str, Any]:
    return {**object_, "metadata": {**object_["metadata"], "resourceVersion": str(version)}}


class Machine:
    """node1. Pods are `p0`, `p1`, …; each has one container, of the same name."""

    def __init__(self, folder: Path, words: list[str], pods: int) -> None:
        self.folder, self._words = folder, words
        run(MACHINE)
        self._agent = 0
        self.config = configuration.parsed(CONFIG | {"run_dir": str(folder / "run")})
        self._door = Kernel(CurrentNamespace(), KernelOpener())
        self._api = Content()
        self.holders: dict[str, subprocess.Popen[bytes]] = {}
        for number in (1, 2):
            self.put("nodes", f"node{number}", msgspec.to_builtins(node(number, VERSIONS)))
        for number in range(pods):
            metadata: dict[str, Any] = {"name": f"p{number}", "namespace": "default", "uid": f"u{number}"}
            if number == pods - 1:
                metadata["annotations"] = {NETWORKS: "blue"}
            self.put("pods", f"default/p{number}", {"metadata": metadata, "spec": {"nodeName": "node1"}})

    # The API, and the clock.

    def put(self, resource: str, path: str, object_: dict[str, Any] | None) -> None:
        """It is this now; None: it is gone."""
        self._api.log.append(Entry(resource, path, object_))
        self._write()

    def _write(self) -> None:
        draft = self.folder / "api.new"
        draft.write_bytes(msgspec.json.encode(self._api))
        draft.rename(self.folder / "api")

    def change(self, **fields: Any) -> None:
        """The API goes away or comes back, the wall clock jumps."""
        for name, value in fields.items():
            setattr(self._api, name, value)
        self._write()

    @property
    def is_away(self) -> bool:
        return self._api.is_away

    # The agent.

    def start(self) -> None:
        """Begin an agent's process, and don't wait for it."""
        assert not self._agent
        if pid := os.fork():
            self._agent = pid
            return
        try:
            self._be_the_agent()
        except BaseException:
            logging.exception("the agent ended")
        finally:
            os._exit(1)

    def _be_the_agent(self) -> None:
        api, clock = FileApi(self.folder / "api"), program.now
        program.HttpTransport = lambda access: api  # type: ignore[assignment,misc]  # a handler, too
        program.now = lambda: clock() + timedelta(seconds=api.content().wall)  # type: ignore[assignment]  # the program's own
        logging.getLogger().handlers = [logging.FileHandler(self.folder / "log")]
        sys.stdin.close()
        program.run(Access("192.0.2.1", 6443), "node1", self.config)

    def end(self, number: signal.Signals) -> None:
        """SIGTERM, or SIGKILL."""
        os.kill(self._agent, number)
        os.waitpid(self._agent, 0)
        self._agent = 0

    def close(self) -> None:
        """End all that was started."""
        if self._agent:
            self.end(signal.SIGKILL)
        for holder in self.holders.values():
            holder.kill()
            holder.wait()

    # The engine.

    def call(self, verb: str, name: str = "", netns: str | None = None, **fields: Any) -> subprocess.Popen[bytes]:
        """Begin a call of the plugin; `netns` is another path than that of the pod's namespace."""
        env = {"CNI_COMMAND": verb, "PODPLANE_CNI_SOCKET": str(self.folder / "run" / "cni.sock")}
        if name:
            uid = f"u{name.removeprefix('p')}"
            args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}"
            env |= {"CNI_CONTAINERID": name, "CNI_IFNAME": "eth0", "CNI_ARGS": args}
        if netns is not None:
            env["CNI_NETNS"] = netns
        elif name and verb != "DEL":
            env["CNI_NETNS"] = f"/proc/{self._holder(name).pid}/ns/net"
        pipe = subprocess.PIPE
        process = subprocess.Popen(self._words, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin is not None
        process.stdin.write(stdin_of("1.1.0", **fields))
        process.stdin.close()
        return process

    def _holder(self, name: str) -> subprocess.Popen[bytes]:
        if name not in self.holders:
            holder = self.holders[name] = subprocess.Popen(["unshare", "-n", "sleep", "600"])
            own = os.stat("/proc/self/ns/net").st_ino
            until(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino != own, "a network namespace")
        return self.holders[name]

    def leave(self, name: str) -> None:
        """The pod's processes end, and with them its namespace."""
        if (holder := self.holders.pop(name, None)) is not None:
            holder.kill()
            holder.wait()

    # What there is.

    def kernel(self) -> dict[Identity, Value]:
        """All that is podplane's in the node's namespace."""
        return self._door.read(ownership(self.config.network()))

    def veths(self) -> set[str]:
        """The node's ends of pods' links."""
        return {one.name for one in self.kernel().values() if isinstance(one, Link) and one.kind == "veth"}

    def said(self) -> str:
        """The log of its agents."""
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""


def answer(process: subprocess.Popen[bytes]) -> tuple[int, Any]:
    """How a call ended: its status, and what it said."""
    assert process.stdout is not None and process.stderr is not None
    said, errors = process.stdout.read(), process.stderr.read()
    assert not errors, errors
    return process.wait(), msgspec.json.decode(said) if said else None


def veth(name: str, ifname: str = "eth0") -> str:
    return veth_name(name, ifname)
