"""One pod on its node: from the object to a network namespace and processes, and back to nothing.

    attach to the network → files and volumes → init containers, one by one → containers → Running
        → (a container ends → restart, with back-off) → Succeeded or Failed, or it is deleted → stop → detach

One task a pod walks that path; whatever happens to a container wakes it. Processes are started by the zygote and hold the
pod's network namespace together with this object; when both are gone, so is the namespace.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from podplane.cni.network import Attachment, NetworkError
from podplane.dns import resolv_conf
from podplane.kernel import ids
from podplane.kernel.namespace import Namespace
from podplane.kernel.process import Mounts, Process, Processes
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kubeapi.errors import ApiError, Conflict, NotFound, without_paths
from podplane.kubeapi.events import NORMAL, WARNING
from podplane.model.phases import ENDED
from podplane.model.pod import Container, Pod
from podplane.runtime import etc_files, network_files, pod_fields, roots, sandboxes, security, users
from podplane.runtime.attempts import Attempts, NotYet
from podplane.runtime.container import ContainerRun, Launch, after_restart_of_node, timestamp
from podplane.runtime.environment import ConfigError, Facts, expand_all, services_of, variables
from podplane.runtime.exec import run_to_end
from podplane.runtime.images import command_of
from podplane.runtime.mounts import PodFolder, machine_accounts
from podplane.runtime.node import Node, PodSandbox
from podplane.runtime.output import log_folder_name
from podplane.runtime.pod_spec import roles_of
from podplane.runtime.probes import Prober
from podplane.runtime.shared_processes import SharedProcesses
from podplane.runtime.status import (
    EPHEMERAL,
    INIT,
    MAIN,
    RUNNING,
    SIDECAR,
    TERMINATED,
    WAITING,
    ContainerState,
    Known,
    as_patch,
    init_has_failed,
    phase,
    pod_status,
)
from podplane.runtime.users import Accounts, User

log = logging.getLogger(__name__)
RETRY_SECONDS = 2.0
REFRESH_SECONDS = 60.0
"""How often volumes are brought up to date."""
SLOW_NETWORK_SECONDS = 5.0
"""A pod whose network takes so long says what it waits for."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True, eq=False)
class PodWorker:
    """One pod; `run` is its life. `settled` is set when the first attempt to start it is over, for better or worse."""

    node: Node
    pod: Pod
    null: int
    clock: Callable[[], float]
    netns: Namespace | None = None
    sandbox: PodSandbox | None = None
    """Its namespaces; those of its node in the network of that."""
    sandbox_id: str = ""
    """Tells the pod's sandbox from any other, as a container engine's ids do (64 hexadecimal digits)."""
    ips: tuple[str, ...] = ()
    runs: list[ContainerRun] = field(default_factory=list)
    started_at: str = ""
    is_ending: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    _files: PodFolder | None = None
    _mounts: Mounts | None = None
    _shared: SharedProcesses = field(default_factory=SharedProcesses)
    _told: set[str] = field(default_factory=set)
    _facts: Facts | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _grace: float = 0
    _failure: tuple[str, str] | None = None
    _over: str = ""
    _began: float = 0.0
    _stops_since: float | None = None
    _is_gone: bool = False
    _refresh_at: float = 0.0
    _reported: bytes = b""
    _no_network: str = ""
    _is_prepared: bool = False
    _attempts: Attempts = field(init=False)

    # What others ask and tell.

    def end(self, grace: float) -> None:
        """The pod is to end within `grace` seconds."""
        if not self.is_ending and self._stops_since is not None:  # its sidecars are being stopped already
            grace = min(self._grace, self.clock() - self._stops_since + grace)
        self.is_ending, self._grace = True, grace
        self._wake.set()

    def changed(self, pod: Pod) -> None:
        """The object changed: labels, conditions of others, images."""
        old, self.pod = self.pod, pod
        specs = {spec.name: spec for spec in pod.spec.all_containers}
        for run in self.runs:
            spec = specs.get(run.spec.name, run.spec)
            if spec.image == run.spec.image:
                continue
            run.spec, run.state.image = spec, spec.image
            if run.is_alive:
                run.stop_and_restart("definition changed")
            else:
                run.restart_at = self.clock()
        self._look_in(pod.spec.ephemeral_containers)
        if old.metadata != pod.metadata:
            self._refresh_at = 0.0
        self._wake.set()

    def _look_in(self, containers: Iterable[Container]) -> None:
        """Have those ephemeral containers too that are new."""
        known = {run.spec.name for run in self.runs}
        for spec in containers:
            if spec.name not in known:
                self.runs.append(ContainerRun(self, spec, ContainerState(spec.name, spec.image, EPHEMERAL)))
                self._refresh_at = 0.0

    def container(self, name: str) -> ContainerRun | None:
        """A container by name, or the first of the spec's `containers`; None when there is none of that name, or the pod has ended."""
        return next((run for run in self.runs if (run.spec.name == name if name else run.role == MAIN)), None)

    # What its containers need (`container.Surroundings`).

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return self.pod.metadata.uid

    @property
    def path(self) -> str:
        """The pod's namespace and name."""
        return self.pod.metadata.path

    @property
    def processes(self) -> Processes:
        """What starts processes."""
        return self.node.processes

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return self.pod.spec.termination_grace_period_seconds

    @property
    def hostname(self) -> str:
        """The pod's own name, or that of its node."""
        return self.node.name if self.pod.spec.host_network else network_files.kernel_name(self.pod, self.node.dns.domain)

    @property
    def facts(self) -> Facts:
        """What the node knows of the pod."""
        return self._facts or Facts(self.ips, self.node.host_ips, self.node.allocatable, {})

    def launch(self, container: Container) -> Launch:
        """What to start for a container. ImageError or ConfigError when there is something missing."""
        assert self.netns is not None
        environment = self.environment(container)
        given = command_of(container)
        command = replace(given, words=tuple(expand_all(given.words, environment)))
        root = roots.of_container(self.node, self._files, self.pod, container, environment)
        sandbox = self.sandbox.id if self.sandbox is not None else 0
        mounts = self._mounts.id if self._mounts is not None else 0
        rights = self.rights(container)
        target = roots.target(self.node, self.pod, container, self.runs)
        pids = self._shared.number(self, self.node) or target
        group, oom = roots.share(self.node, self.pod, container, self.container(container.name))
        return Launch(command, environment, root, self.hostname, self.netns.fd, sandbox, rights, mounts, group, oom, pids)

    @property
    def bare_root(self) -> Root | None:
        """The file system of what runs in no container: without volumes."""
        return roots.bare(self.node)

    def environment(self, container: Container) -> dict[str, str]:
        """The environment of a container's processes. ConfigError when a variable can't be had."""
        fixed = {"PATH": PATH, "HOME": self._user(container).home, "HOSTNAME": self.hostname} | users.environment(ids.of_pods())
        return fixed | variables(self.pod, container, self.facts) | ({"TERM": "xterm"} if container.tty else {})

    def rights(self, container: Container) -> Rights:
        """Who a container's processes are, and what they may do. ConfigError when they can't be that."""
        return security.rights(self.pod, container, self._user(container))

    def _user(self, container: Container) -> User:
        return users.of(self.pod, container, ids.of_pods(), machine_accounts() if users.asks(self.pod) else Accounts())

    def log_file(self, container: str, run: int) -> Path:
        """Where the log of a container's run is."""
        return self._log_folder / container / f"{run}.log"

    @property
    def _log_folder(self) -> Path:
        metadata = self.pod.metadata
        return self.node.logs / log_folder_name(metadata.namespace, metadata.name, metadata.uid)

    def prober(self, run: ContainerRun) -> Prober:
        """What probes a container."""

        async def execute(command: tuple[str, ...], seconds: float) -> tuple[int, str]:
            return await run_to_end(self, run, command, seconds)

        return Prober(run.spec, self.node.namespace, self.ips[0] if self.ips else "", execute)

    def restarts(self, run: ContainerRun, code: int) -> bool:
        """Is a container started again after it ended so?"""
        policy = self.pod.spec.restart_policy
        if self.is_ending or self._failure is not None or run.role == EPHEMERAL:
            return False
        if run.role == SIDECAR:
            return not self._is_done()
        always = policy == "Always" and run.role == MAIN
        return always or (policy != "Never" and code != 0)

    def wake(self) -> None:
        """Something happened."""
        self._wake.set()

    async def tell(self, reason: str, message: str, type_: str = NORMAL, part: str = "") -> None:
        """An event of the pod."""
        metadata = self.pod.metadata
        about = {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid}
        await self.node.recorder.record("v1/Pod", about, reason, message, type_, part)

    async def _warn(self, reason: str, message: str) -> None:
        await self.tell(reason, message, WARNING)

    # Its life.

    async def run(self) -> None:
        """Live: until the pod ends, or this is cancelled (then nothing is cleaned up: the process is about to end)."""
        self._began, self.started_at = self.clock(), self.pod.status.start_time or timestamp()
        before = {status.name: msgspec.to_builtins(status) for status in self.pod.status.all_container_statuses}
        policy = "Never" if self.pod.status.phase in ENDED else self.pod.spec.restart_policy
        self.runs = [
            ContainerRun(self, spec, after_restart_of_node(spec, role, before.get(spec.name, {}), policy))
            for spec, role in roles_of(self.pod)
        ]
        self._attempts = Attempts(f"pod={self.path} node={self.node.name}", self._warn, self.clock)
        try:
            await self._live()
        finally:
            if self.is_ending:
                await self._attempts.until_done(self._finish)
                self.runs.clear()  # they refer to this, and so do the attempts: the oldest generation of garbage is collected seldom
                del self._attempts

    async def _live(self) -> None:
        if self.pod.status.phase in ENDED:
            self._over = self.pod.status.phase
        while not self.is_ending and self._over:
            self.settled.set()
            await self._sleep(None)
        while not self.is_ending and not self._is_prepared:
            if not await self._attempts.succeeds(self._prepare):
                self.settled.set()
            if not self._is_prepared:
                await self._sleep(RETRY_SECONDS if self._attempts.due_at is None else self._patience())
        while not self.is_ending:
            await self._attempts.succeeds(self._turn)
            self.settled.set()
            await self._sleep(None if self._over and self._attempts.due_at is None else self._patience())

    async def _turn(self) -> None:
        if not self._over:
            await self._advance()
        await self.report()

    async def _advance(self) -> None:
        """Do what is due: refresh, start, start again; and see whether it is over."""
        if self.clock() >= self._refresh_at:
            await self._refresh()
        deadline = self.pod.spec.active_deadline_seconds
        if deadline is not None and self.clock() >= self._began + deadline:
            await self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        elif self.node.sandbox_only:
            self._pretend()
        else:
            await self._bring_up_all(EPHEMERAL)  # also into a pod whose other containers can't begin
            if await self._initialize():
                await self._bring_up_all(MAIN)
        if self._is_done():
            await self._stop_all(self.grace)
        if not any(run.is_alive for run in self.runs):
            is_now = phase(self.known(), self.pod.spec.restart_policy)
            if is_now in ENDED:
                self._over = is_now
                await self._detach()

    def _pretend(self) -> None:
        """Without processes, a pod is its network namespace."""
        for run in self.runs:
            if run.state.state == WAITING:
                run.state.state, run.state.reason, run.state.started_at = RUNNING, "", timestamp()
                run.state.started = run.state.ready = True

    async def _initialize(self) -> bool:
        """Bring the init containers forward, one after the other; True when all are done and all sidecars have started."""
        for run in self.runs:
            if run.role in (MAIN, EPHEMERAL):
                return True
            if run.role == INIT and run.state.succeeded:
                continue
            await self._bring_up(run)
            if not run.state.started if run.role == SIDECAR else not run.state.succeeded:
                return False
        return True

    async def _bring_up_all(self, role: str) -> None:
        for run in list(self.runs):
            if run.role == role and not self.is_ending:
                await self._bring_up(run)

    async def _bring_up(self, run: ContainerRun) -> None:
        """Start a container that waits for its first or its next start."""
        if run.is_alive:
            return
        if run.restart_at is not None:
            if run.state.reason in ("CreateContainerConfigError", "CreateContainerError"):
                await self._gather()
            await run.restart_if_due()
        elif run.state.state == WAITING and run.state.reason in ("ContainerCreating", "PodInitializing"):
            await run.start()

    def _is_done(self) -> bool:
        """Is there nothing any more that its sidecars would run for?"""
        if self.pod.spec.restart_policy == "Never" and init_has_failed(self.known()):
            return True
        mains = [run for run in self.runs if run.role == MAIN]
        return all(run.state.state == TERMINATED and run.restart_at is None for run in mains)

    async def _fail(self, reason: str, message: str) -> None:
        """End all containers for a reason: the pod has failed."""
        if self._failure is None:
            self._failure = (reason, message)
            await self.tell(reason, message, WARNING)
            await self._stop_all(self.grace)

    async def _stop_all(self, grace: float) -> None:
        """Stop what still runs, sidecars last, the last of them first (KEP-753). The status says at once what is not ready any more."""
        self._stops_since, self._grace = self.clock(), grace
        if not any(run.is_alive for run in self.runs):
            return
        await self.report()
        for run in self.runs:
            if run.is_alive and grace:
                await self.tell("Killing", f"Stopping container {run.spec.name}", part=run.part)
        await self._end([run for run in self.runs if run.role != SIDECAR])
        for run in reversed(self.runs):
            if run.role == SIDECAR:
                await self._end([run])

    def _patience(self) -> float | None:
        """Seconds until something is due by itself; after an attempt that failed, until the next one."""
        if self._attempts.due_at is not None:
            return max(0.0, self._attempts.due_at - self.clock())
        due = [run.restart_at for run in self.runs if run.restart_at is not None]
        if self.pod.spec.volumes:
            due.append(self._refresh_at)
        if self.pod.spec.active_deadline_seconds is not None:
            due.append(self._began + self.pod.spec.active_deadline_seconds)
        return max(0.0, min(due) - self.clock()) if due else None

    async def _sleep(self, seconds: float | None) -> None:
        """Until something happens, at most so long."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass
        self._wake.clear()

    # What it is made of.

    async def _prepare(self) -> None:
        """A network, files and volumes; when they can't be had, an event and the status say why."""
        if why := pod_fields.why_refused(self.pod) or network_files.name_trouble(self.pod, self.node.dns.domain):
            await self._waits("FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}", why)
            return
        try:
            await self._attach()
        except (NetworkError, OSError) as error:
            why = str(error) if isinstance(error, NetworkError) else sandboxes.no_namespace(error)
            await self._waits("FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}", why)
            return
        try:
            if not self.node.sandbox_only:
                await self._gather()
        except (ConfigError, OSError, ValueError) as error:
            why = without_paths(error)
            await self._waits("FailedMount", f"MountVolume.SetUp failed: {why}", why)
            return
        initial = "PodInitializing" if self.pod.spec.init_containers else "ContainerCreating"
        for run in self.runs:
            if run.state.state == WAITING:
                run.state.message, run.state.reason = "", initial
        self._is_prepared = True

    async def _waits(self, reason: str, event: str, message: str) -> None:
        for run in self.runs:
            run.state.message = message
        await self.tell(reason, event, WARNING)
        await self.report()
        self.settled.set()

    @property
    def attachment(self) -> Attachment:
        """The pod as its network knows it."""
        assert self.netns is not None
        return sandboxes.attachment(self.pod, self.sandbox_id, self.netns)

    async def _attach(self) -> None:
        """A network namespace with addresses. NetworkError or OSError when that can't be had."""
        if self.ips:
            return
        if self.pod.spec.host_network:
            self.sandbox = self.node.host_sandbox
            self.netns, self.ips = self.node.namespace, self.node.host_ips
            return
        if self.netns is None:
            self.sandbox = await self.node.new_sandbox(*users.only_one(self.pod))
            self.netns = self.sandbox.namespace
            self.sandbox_id = secrets.token_hex(32)
        telling = asyncio.get_running_loop().create_task(self._tell_slow_network())
        try:
            self.ips = (await self.node.network.add(self.attachment)).ips
        finally:
            telling.cancel()
            self._no_network = ""

    async def _tell_slow_network(self) -> None:
        """Say so when the node's agent gives no answer for long: until it does, nothing else of the pod happens."""
        await asyncio.sleep(SLOW_NETWORK_SECONDS)
        self._no_network = f"the agent of {self.node.name} has not given it a network for {SLOW_NETWORK_SECONDS:g} s"
        try:
            await self.tell("NetworkNotReady", f"network is not ready: {self._no_network}", WARNING)
            await self.report()
        except ApiError as error:
            log.warning("pod=%s error=%s", self.path, error)

    async def _detach(self) -> None:
        await self._shared.end()
        if self.sandbox is None or self.pod.spec.host_network:
            return
        try:
            await self.node.network.delete(self.attachment)
        except NetworkError as error:
            raise NotYet("FailedKillPod", f"error killing pod: {error}") from None
        self.sandbox.close()
        self.netns = self.sandbox = None

    async def _gather(self) -> None:
        """Ask for all that its containers and volumes are made of, and write its files. ConfigError when a volume can't be made."""
        if self.node.folder is not None and self._files is None:
            self._files = PodFolder(self.node.folder / "pods" / self.uid, self.node.client, roots.host_paths(self.node))
            for sentence in resolv_conf.omitted(etc_files.names_of(self.pod, self.node)):
                await self.tell("DNSConfigForming", sentence, WARNING)
        if self._files is not None:
            for reason, sentence in pod_fields.told(
                self.pod, self.node.groups.controllers, ids.of_pods(), shows_processes=self.node.shows_processes
            ):
                if sentence not in self._told:
                    self._told.add(sentence)
                    await self.tell(reason, sentence, WARNING)
        services = services_of(self.node.services, self.pod.metadata.namespace)
        sources = await PodFolder.sources(self.node.client, self.pod)
        self._facts = Facts(self.ips, self.node.host_ips, self.node.allocatable, sources, services)
        if self._files is not None:
            await self._files.write(self.pod, self._facts, etc_files.of_pod(self.pod, self.ips, self.hostname, self.node))
            if self._mounts is None and (wanted := self._files.tmpfs(self.pod)):
                self._mounts = await sandboxes.mounts(self.processes, wanted)
        self._refresh_at = self.clock() + REFRESH_SECONDS

    async def _refresh(self) -> None:
        """Bring volumes up to date; what is missing now stays as it was."""
        if self.node.sandbox_only or not self.pod.spec.volumes:
            self._refresh_at = self.clock() + REFRESH_SECONDS
            return
        try:
            await self._gather()
        except (ConfigError, ApiError, OSError, ValueError) as error:
            self._refresh_at = self.clock() + REFRESH_SECONDS
            await self.tell("FailedMount", f"MountVolume.SetUp failed: {without_paths(error)}", WARNING)

    # The end.

    async def _finish(self) -> None:
        """preStop and SIGTERM, the grace, SIGKILL; sidecars last; then the network, then the object."""
        self.settled.set()
        await self._stop_all(self._grace)
        await self._detach()
        if self._mounts is not None:
            self._mounts.release()
        if self._files is not None:
            await self._files.remove()
        shutil.rmtree(self._log_folder, ignore_errors=True)
        self._is_gone = True
        if not self._over:  # a finalizer may keep the object, which then says how it ended
            await self.report()
        await self._delete()

    async def lose_power(self) -> None:
        """Its machine has no power: what is there of it is gone, without a word to anybody. Its `run` has been cancelled."""
        processes = [run.process for run in self.runs if run.process is not None]
        for run in self.runs:
            run.lose_power()
        await asyncio.gather(*(process.exited for process in processes))
        await self._shared.end()
        if self.sandbox is not None and not self.pod.spec.host_network:
            self.sandbox.close()
        if self._mounts is not None:
            self._mounts.release()
        if self._files is not None:
            await self._files.remove()

    async def _end(self, runs: Sequence[ContainerRun]) -> None:
        """End these within what is left of the grace, which may be shortened meanwhile."""
        alive = _alive(runs)
        asking = [asyncio.ensure_future(self._ask(run)) for run in runs if run.is_alive]
        while alive and (left := self._left()) > 0:
            await self._sleep(left)
            alive = _alive(runs)
            await self.report()
        for task in asking:
            task.cancel()
        for process in alive:
            process.signal(signal.SIGKILL)
        if alive:
            await asyncio.wait([p.exited for p in alive])

    async def _ask(self, run: ContainerRun) -> None:
        """Ask a container to end."""
        process = run.process
        try:
            await run.before_stop(self._left())
        except Exception:
            log.exception("stop container=%s pod=%s", run.spec.name, self.path)
        if process is not None and self._left() > 0:
            process.signal(run.stop_signal)

    def _left(self) -> float:
        return (self._stops_since or 0.0) + self._grace - self.clock()

    async def _delete(self) -> None:
        meta = self.pod.metadata
        try:
            await self.node.client.delete("pods", meta.namespace, meta.name, grace=0, uid=meta.uid)
        except (NotFound, Conflict):
            pass  # somebody forced it
        except ApiError as error:
            log.warning("delete pod=%s error=%s", meta.path, error)

    # Its status.

    def known(self) -> Known:
        """What is known of it."""
        states = [run.state for run in self.runs]
        gates = [gate.condition_type for gate in self.pod.spec.readiness_gates]
        return Known(
            states,
            ips=self.ips,
            host_ips=self.node.host_ips,
            started_at=self.started_at,
            has_network=bool(self.ips) and self.netns is not None and not self._over and not self._is_gone,
            no_network=self._no_network,
            failure=self._failure,
            over=self._over,
            gates=gates,
            is_gone=self._is_gone,
        )

    async def report(self) -> None:
        """Write the status, if it is another one than before."""
        meta = self.pod.metadata
        status: dict[str, Any] = pod_status(self.pod, self.known(), timestamp())
        encoded = msgspec.json.encode(status)
        if encoded == self._reported:
            return
        try:
            await self.node.client.patch_own_status("pods", meta.namespace, meta.name, as_patch(status), meta.uid)
            self._reported = encoded
        except (NotFound, Conflict):
            pass  # its deletion is on its way to us
        except ApiError as error:
            log.warning("status pod=%s error=%s", meta.path, error)


def _alive(runs: Iterable[ContainerRun]) -> list[Process]:
    return [run.process for run in runs if run.process is not None and run.is_alive]
