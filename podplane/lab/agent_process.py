"""An agent of the lab as a process of its own: `podplane agent`, in its node's network namespace, as on a real machine.

    lab ── starts it, reads its sd_notify datagrams, starts it again when it ends or says nothing for long ──► process
    kubelet ── CNI calls ──► its socket          process ── HTTPS over the underlay ──► API          API ── reports ──► its port 10256

It finds out by itself what an agent in the lab's process is told: pods and their addresses from its journal, its uplink from Node and
kernel, whether its node's name server answers by asking it. Its folder is on the lab's tmpfs: nothing of it outlives the lab.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.agent.caches import Caches
from podplane.agent.feature import Kind
from podplane.agent.node import Concern, Started
from podplane.agent.settings import Settings
from podplane.cni.client import PluginNetwork
from podplane.cni.network import Network
from podplane.cni.socket_path import reachable
from podplane.dns import resolv_conf
from podplane.kernel import interpreter
from podplane.kernel.namespace import Namespace
from podplane.kubeapi.access import Access
from podplane.kubeapi.retry import Backoff
from podplane.kubeapi.supervise import Supervisor
from podplane.lab.errors import LabError
from podplane.lab.faults import blockade
from podplane.lab.folder import write_private
from podplane.model.node_addresses import why_no_address

log = logging.getLogger(__name__)
RESOLV_CONF = Path("/etc/resolv.conf")
ENTRY = "import sys; place = sys.argv[1]; n = sys.argv.index('--'); sys.path[:] = sys.argv[2:n]; sys.argv[:] = sys.argv[n:]; \
from podplane.lab import machine_folders; machine_folders.enter(place); from podplane.cli.main import main; main()"
READY_SECONDS = 60.0
"""So long a start may take."""
WATCHDOG_SECONDS = 30.0
"""One that says nothing for so long is killed."""
SERVED_SECONDS = 1.0
"""One that was ready for so long and ends is started again at once."""
LOWEST_SECONDS, HIGHEST_SECONDS = 0.1, 10.0
STARTED = "X_PODPLANE_STARTED"


class AgentProcess:
    """The agent of one node, in its namespace; its methods run on one event loop. `access` is that of the node to the API."""

    tells_links = False

    def __init__(self, name: str, namespace: Namespace, folder: Path, settings: Settings, access: Access) -> None:
        self.name = name
        self.supervisor = Supervisor()
        self._namespace = namespace
        self._folder = folder
        self._settings = settings
        self._access = access
        self._network = PluginNetwork(folder / "cni.sock")
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._pid = 0
        self._ready: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._status = ""
        self._starts = 0
        self._heard_at = 0.0
        self._exited: asyncio.Future[int] | None = None
        self._is_paused = False

    # `LabAgent`.

    @property
    def network(self) -> Network:
        """Over its socket, as the plugin asks."""
        return self._network

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Those that every node has."""
        from podplane.nodes.plan import SYSCTLS

        return SYSCTLS

    async def start(self) -> Started:
        """Start the process, and wait until it says that it is ready. LabError when it does not."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._folder / "kubeconfig", msgspec.json.encode(_kubeconfig(self._access)))
        write_private(self._folder / "config", msgspec.json.encode(_configuration(self._settings)))
        with reachable(self._folder / "notify") as short:
            self._notifications.bind(short)
        asyncio.get_running_loop().add_reader(self._notifications, self._heard)
        self.supervisor.add("agent", self._keep)
        return await self._until_ready()

    def run(self) -> None:
        """It runs since `start`."""

    async def restart(self) -> Started:
        """SIGTERM, as a service manager restarts it."""
        loop = asyncio.get_running_loop()
        began, self._ready = loop.time(), loop.create_future()
        self._signal(signal.SIGTERM)
        started = await self._until_ready()
        return msgspec.structs.replace(started, seconds=loop.time() - began)

    async def close(self) -> None:
        """SIGKILL, and nothing comes after it. Of what it kept, only what is on a disk stays: /run goes with a machine's power."""
        await self.supervisor.close()
        if self._exited is not None:
            await asyncio.shield(self._exited)
        asyncio.get_running_loop().remove_reader(self._notifications)
        self._notifications.close()
        await asyncio.to_thread(_forget, self._folder)

    async def _until_ready(self) -> Started:
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), READY_SECONDS)
        except TimeoutError:
            raise LabError(
                f"the agent of {self.name} is not ready after {READY_SECONDS:g} s: {self._status or 'it says nothing'}"
            ) from None

    def changed(self, kind: Kind, old: Any, new: Any) -> None:
        """It watches the API itself."""

    def is_concerned(self, change: Concern) -> bool:
        """Of none: it watches the API itself."""
        return False

    def read_from(self, caches: Caches) -> None:
        """It has caches of its own."""

    def name_server_changed(self, *, answers: bool) -> None:
        """It asks the name server itself."""

    def reserve(self, pod_uid: str, ips: tuple[str, ...]) -> None:
        """It reads from the API which addresses its pods had."""

    def cancel_reservation(self, pod_uid: str) -> None:
        """It reads from the API which pods went."""

    async def cut(self) -> None:
        """Nothing passes between the node and the API."""
        await asyncio.to_thread(blockade.set_up, self._namespace, self._access.host, self._access.port)

    async def join(self) -> None:
        """It passes again."""
        await asyncio.to_thread(blockade.lift, self._namespace)

    def kill(self) -> int:
        """SIGKILL; it is started again."""
        return self._signal(signal.SIGKILL)

    def pause(self) -> int:
        """SIGSTOP; it is not taken for one that hangs."""
        self._is_paused = True
        return self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._heard_at = asyncio.get_running_loop().time()
        self._is_paused = False

    def _signal(self, number: int) -> int:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
        return self._pid

    # Its life.

    async def _keep(self) -> None:
        """Keep the process running until cancelled."""
        backoff, loop = Backoff(LOWEST_SECONDS, HIGHEST_SECONDS), asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._live()
            except OSError as error:
                log.warning("agent of %s can't be started: %s", self.name, error)
            if not self._ready.done() or loop.time() - began < SERVED_SECONDS:
                await asyncio.sleep(backoff.delay(loop.time()))

    async def _live(self) -> None:
        """One process, to its end."""
        loop = asyncio.get_running_loop()
        if self._ready.done():
            self._ready = loop.create_future()
        self._drain()
        self._pid = self._namespace.run(self._spawn)
        self._heard_at = loop.time()
        exited = self._exited = interpreter.exit_of(self._pid)
        watch = loop.create_task(self._watch())
        try:
            code = await asyncio.shield(exited)
            log.warning("agent of %s pid=%d ended exit_code=%d %s", self.name, self._pid, code, self._status)
        finally:
            watch.cancel()
            if not exited.done():
                self._signal(signal.SIGKILL)
            self._pid = 0

    def _spawn(self) -> int:
        """In the node's namespace: a child has that of the thread that starts it."""
        words = [
            "podplane",
            "agent",
            "--kubeconfig",
            str(self._folder / "kubeconfig"),
            "--config",
            str(self._folder / "config"),
        ]
        words += ["--node-name", self.name, "--run-dir", str(self._folder)]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
        }
        argv = [sys.executable, "-I", "-S", "-c", ENTRY, str(self._folder / "machine"), *sys.path, "--", *words[1:]]
        return os.posix_spawn(sys.executable, argv, environment, setsid=True)

    async def _watch(self) -> None:
        """Kill a process that says nothing."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCHDOG_SECONDS / 10)
            if loop.time() - self._heard_at > WATCHDOG_SECONDS and not self._is_paused:
                log.warning("agent of %s pid=%d does not answer", self.name, self._pid)
                self._signal(signal.SIGKILL)

    def _heard(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        for lines in self._messages():
            self._status = lines.get("STATUS", self._status)
            if lines.get("READY") == "1" and not self._ready.done():
                started = msgspec.json.decode(lines[STARTED], type=Started)
                if self._starts:
                    log.warning("agent of %s pid=%d is ready changes=%d", self.name, self._pid, started.changes)
                self._starts += 1
                self._ready.set_result(started)

    def _drain(self) -> None:
        """What a process before this one said."""
        for _ in self._messages():
            pass

    def _messages(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        while True:
            try:
                message = self._notifications.recv(1 << 16)
            except BlockingIOError:
                return found
            found.append(dict(line.partition("=")[::2] for line in message.decode(errors="replace").split("\n")))


def _forget(folder: Path) -> None:
    """Delete all but what plugins of others have in /var/lib (`machine_folders`)."""
    for entry in (*folder.glob("*"), *folder.glob("machine/*")):
        if entry.name not in ("machine", "var-lib"):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _kubeconfig(access: Access) -> dict[str, Any]:
    """A kubeconfig with the node's own credentials."""
    server = {
        "server": f"https://{access.address}",
        "certificate-authority-data": base64.b64encode(access.ca.encode()).decode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": server}],
        "users": [{"name": "agent", "user": {"token": access.token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "agent"}}],
        "current-context": "lab",
    }


def _configuration(settings: Settings) -> dict[str, Any]:
    """A configuration file: what all nodes have in common. What an agent finds out by itself is not in it."""
    content: dict[str, Any] = msgspec.to_builtins(settings)
    for name in ("uplink", "mtu", "permanent_neighbours", "cluster_cidrs", "service_cidrs"):
        del content["network"][name]
    return content | {"allow_overlaps": _name_servers()}


def _name_servers() -> list[str]:
    """Those of the host, which the lab's nodes do not ask: they may have addresses of the lab's networks."""
    try:
        found = resolv_conf.read(RESOLV_CONF.read_text(errors="replace")).nameservers
    except OSError:
        return []
    return [text for text in found if not why_no_address(text)]
