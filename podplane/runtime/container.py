"""One container of a pod: started, probed, restarted with back-off, stopped.

    waiting ─ start ─> running ─ ends ─> terminated ─ restarts? ─> waiting (CrashLoopBackOff) ─ due ─> running

The pod decides when; whatever happens here wakes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Group
from podplane.kernel.process import NotYet, Process, ProcessError, Processes
from podplane.kernel.rights import Rights
from podplane.kernel.rootfs import Root
from podplane.kubeapi.errors import described
from podplane.kubeapi.events import NORMAL, WARNING
from podplane.model.pod import Container, Handler, Probe
from podplane.runtime import pod_fields
from podplane.runtime.attempts import Attempts
from podplane.runtime.environment import ConfigError
from podplane.runtime.images import Command, ImageError
from podplane.runtime.output import LogFile, Output, remove
from podplane.runtime.probes import ProbeFailed, Prober, failing, watch
from podplane.runtime.status import EPHEMERAL, MAIN, RUNNING, TERMINATED, WAITING, ContainerState

log = logging.getLogger(__name__)
BACKOFF_SECONDS = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Before the first restart, the second, …; as kubelet's, that begins at once and ends at five minutes."""
FORGIVEN_AFTER_SECONDS = 600.0
"""A container that ran so long begins anew with its back-off."""
CONFIG_RETRY_SECONDS = 5.0
KEPT_LOGS = 2
"""Of how many runs there are logs: the last one and the one before (kubelet, maximum-dead-containers-per-container)."""
NEVER_BEGAN = ("CreateContainerConfigError", "CreateContainerError", "ErrImagePull", "ImagePullBackOff")
"""Why a container waits whose start was refused; when it starts after all, that is no further restart."""
FIELDS = {MAIN: "containers", EPHEMERAL: "ephemeralContainers"}
"""Where the spec of a pod has the containers of a role; those of others are `initContainers`."""
START_ERROR, START_ERROR_CODE = "StartError", 128
"""Reason and exit code of a container whose command could not be started (containerd, errorStartReason, errorStartExitCode)."""
STARTUP, READINESS, LIVENESS = "Startup", "Readiness", "Liveness"
"""Probes, as events name them."""


class Launch(msgspec.Struct, frozen=True):
    """What a container's process is made of."""

    command: Command
    environment: Mapping[str, str]
    root: Root | None
    hostname: str
    netns: int
    sandbox: int = 0
    rights: Rights = Rights()  # it is immutable
    mounts: int = 0
    group: Group | None = None
    oom: int = 0
    pids: int = 0


class Surroundings(Protocol):
    """What a container needs of its pod."""

    @property
    def uid(self) -> str:
        """The pod's uid."""

    @property
    def path(self) -> str:
        """The pod's namespace and name."""

    @property
    def processes(self) -> Processes:
        """What starts processes."""

    @property
    def null(self) -> int:
        """A descriptor of /dev/null."""

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds."""

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""

    def launch(self, container: Container) -> Launch:
        """What to start. ImageError or ConfigError when there is something missing."""

    def log_file(self, container: str, run: int) -> Path:
        """Where the log of this run goes."""

    def prober(self, run: ContainerRun) -> Prober:
        """What probes the container."""

    def restarts(self, run: ContainerRun, code: int) -> bool:
        """Is it started again after it ended so?"""

    def wake(self) -> None:
        """Something happened."""

    async def tell(self, reason: str, message: str, type_: str = NORMAL, part: str = "") -> None:
        """An event."""


class ContainerRun(msgspec.Struct, eq=False):
    """A container and its process, if it has one now."""

    pod: Surroundings
    spec: Container
    state: ContainerState
    process: Process | None = None
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    output: Output | None = None
    restart_at: float | None = None
    failures: int = 0
    _began: float = 0.0
    _group: Group | None = None
    _probes: dict[str, asyncio.Task[None]] = msgspec.field(default_factory=dict)
    _stopping: asyncio.Task[None] | None = None
    _late: asyncio.Task[None] | None = None

    @property
    def role(self) -> str:
        """What it is to its pod."""
        return self.state.role

    @property
    def part(self) -> str:
        """The field of the pod that it is, for events."""
        return f"spec.{FIELDS.get(self.role, 'initContainers')}{{{self.spec.name}}}"

    @property
    def stop_signal(self) -> int:
        """What asks it to end."""
        return pod_fields.stop_signal(self.spec)

    @property
    def is_alive(self) -> bool:
        """Has it a process?"""
        return self.process is not None and not self.process.exited.done()

    # Start.

    async def start(self) -> None:
        """Start it, or say why that can't be."""
        self.restart_at = None
        try:
            launch = self.pod.launch(self.spec)
        except ImageError as error:
            self.failures += 1
            self.restart_at = self.pod.clock() + BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS) - 1)]
            await self._refuse("ErrImagePull", str(error), f'Failed to pull image "{self.spec.image}": {error}')
            return
        except ConfigError as error:
            self.restart_at = self.pod.clock() + CONFIG_RETRY_SECONDS
            await self._refuse(error.reason, str(error), f"Error: {error}")
            return
        except Exception as error:
            await self._fail(error)
            return
        try:
            process = self._spawn(launch)
        except Exception as error:
            await self._fail(error)
            return
        try:
            await process.started()
        except NotYet as error:
            await self.pod.tell("Failed", f"Error: {error}; the start of the container is still awaited", WARNING, self.part)
            self._late = asyncio.ensure_future(self._started_late(process))
            return
        except ProcessError as error:  # `_ended` has it in the status
            why = self.state.message if self.state.reason == START_ERROR else error
            await self.pod.tell("Failed", f"Error: {why}", WARNING, self.part)
            return
        await self._has_started(process)

    async def _has_started(self, process: Process) -> None:
        if self.process is process and not process.exited.done():
            self._runs()
            await self.pod.tell("Started", f"Started container {self.spec.name}", part=self.part)
            await self._after_start()

    async def _started_late(self, process: Process) -> None:
        """Of its start nothing was heard for long. It is believed when something is, as a kubelet believes what runs."""
        try:
            while True:
                with contextlib.suppress(NotYet):
                    await process.started()
                    await self._has_started(process)
                    self.pod.wake()
                    return
        except ProcessError:
            pass  # `_ended` has it in the status
        except Exception:
            log.exception("late start container=%s pod=%s", self.spec.name, self.pod.path)

    async def _fail(self, error: Exception) -> None:
        """It can't be made; of what is no error of the system, or a value that it can't take, nobody thought."""
        if not isinstance(error, (OSError, ValueError)):
            log.exception("start container=%s pod=%s", self.spec.name, self.pod.path)
        self.restart_at = self.pod.clock() + CONFIG_RETRY_SECONDS
        why = described(error, with_paths=False)
        await self._refuse("CreateContainerError", why, f"Error: {why}")

    async def _refuse(self, reason: str, message: str, event: str) -> None:
        first = (self.state.reason, self.state.message) != (reason, message)
        self.state.state, self.state.reason, self.state.message = WAITING, reason, message
        if first:
            await self.pod.tell("Failed", event, WARNING, self.part)

    def _spawn(self, launch: Launch) -> Process:
        if self.state.restarts >= KEPT_LOGS:
            remove(self.pod.log_file(self.spec.name, self.state.restarts - KEPT_LOGS))
        log_file = LogFile(self.pod.log_file(self.spec.name, self.state.restarts), utc_now)
        output = Output.open(log_file, self.pod.null, stdin=self.spec.stdin, tty=self.spec.tty)
        try:
            process = self._begin_process(launch, output)
        except BaseException:
            output.begin()
            output.close()
            raise
        self.output, self.process = output, process
        output.begin()
        self.environment = launch.environment
        self._began, self._group = self.pod.clock(), launch.group
        process.exited.add_done_callback(lambda future: self._ended(process, future))
        return process

    def _begin_process(self, launch: Launch, output: Output) -> Process:
        return self.pod.processes.spawn(
            launch.command.words,
            output.stdio,
            netns=launch.netns,
            env=launch.environment,
            hostname=launch.hostname,
            directory=self.spec.working_dir,
            terminal=output.terminal.take if output.terminal is not None else None,
            root=launch.root,
            program=launch.command.program,
            sandbox=launch.sandbox,
            rights=launch.rights,
            mounts=launch.mounts,
            group=launch.group,
            oom=launch.oom,
            pids=launch.pids,
        )

    def _runs(self) -> None:
        state = self.state
        state.state, state.reason, state.message, state.started_at = RUNNING, "", "", timestamp()
        state.container_id = f"podplane://{self.pod.uid}/{self.spec.name}/{state.restarts}"
        state.started, state.ready = self.spec.startup_probe is None, False
        self._probe(self.spec.startup_probe, self._startup_decided, STARTUP)
        if state.started:
            self._begin_probes()

    async def _after_start(self) -> None:
        """The postStart hook; a container whose hook fails is ended."""
        hook = self.spec.lifecycle.post_start if self.spec.lifecycle is not None else None
        if hook is None:
            return
        try:
            await self._run_hook(hook)
        except ProbeFailed as error:
            await self.pod.tell("FailedPostStartHook", f"PostStartHook failed: {error}", WARNING, self.part)
            self.stop_and_restart("FailedPostStartHook")

    # Probes.

    def _begin_probes(self) -> None:
        self.state.ready = self.spec.readiness_probe is None
        self._probe(self.spec.readiness_probe, self._readiness_decided, READINESS)
        self._probe(self.spec.liveness_probe, self._liveness_decided, LIVENESS)

    def _probe(self, probe: Probe | None, decided: Callable[[bool], None], name: str) -> None:
        if probe is None:
            return

        async def failed(why: str) -> None:
            await self.pod.tell("Unhealthy", f"{name} probe failed: {why}", WARNING, self.part)

        async def warned(what: str) -> None:
            await self.pod.tell("ProbeWarning", f"{name} probe warning: {what}", WARNING, self.part)

        async def keep() -> None:
            attempts = Attempts(f"{name} probe of container={self.spec.name} pod={self.pod.path}", self._warn, self.pod.clock)
            await attempts.until_done(lambda: watch(self.pod.prober(self), probe, decided, failed, warned))

        self._probes[name] = asyncio.ensure_future(keep())

    async def _warn(self, reason: str, message: str) -> None:
        await self.pod.tell(reason, message, WARNING, self.part)

    def _startup_decided(self, succeeded: bool) -> None:
        if not succeeded:
            self._restart_after_probe(self.spec.startup_probe, "startup")
        elif not self.state.started:
            self.state.started = True
            self._cancel_probes(STARTUP)
            self._begin_probes()
            self.pod.wake()

    def _readiness_decided(self, succeeded: bool) -> None:
        if self.state.ready is not succeeded:
            self.state.ready = succeeded
            self.pod.wake()

    def _liveness_decided(self, succeeded: bool) -> None:
        if not succeeded:
            self._restart_after_probe(self.spec.liveness_probe, "liveness")

    def _restart_after_probe(self, probe: Probe | None, name: str) -> None:
        grace = probe.termination_grace_period_seconds if probe is not None else None
        self.stop_and_restart(f"failed {name} probe", grace)

    def stop_and_restart(self, why: str, grace: float | None = None) -> None:
        """End it for a reason; what follows is what follows any end."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop_for(why, self.pod.grace if grace is None else grace))

    async def _stop_for(self, why: str, grace: float) -> None:
        process = self.process
        try:
            await self.pod.tell("Killing", f"Container {self.spec.name} {why}, will be restarted", part=self.part)
            await self.stop(grace)
        except Exception:
            log.exception("stop container=%s pod=%s", self.spec.name, self.pod.path)
            if process is not None:
                process.signal(signal.SIGKILL)

    # End.

    async def stop(self, grace: float) -> None:
        """preStop, SIGTERM or its own signal, the grace, SIGKILL; returns when it has ended."""
        process, end = self.process, self.pod.clock() + grace
        if process is None or process.exited.done():
            return
        await self.before_stop(grace)
        process.signal(self.stop_signal)
        await asyncio.wait((process.exited,), timeout=max(0.0, end - self.pod.clock()))
        process.signal(signal.SIGKILL)
        await asyncio.shield(process.exited)

    def lose_power(self) -> None:
        """Its process is killed, and nothing follows from that."""
        self._cancel_probes(STARTUP, READINESS, LIVENESS)
        for task in (self._stopping, self._late):
            if task is not None:
                task.cancel()
        if self.process is not None:
            self.process.signal(signal.SIGKILL)

    async def before_stop(self, seconds: float) -> None:
        """The preStop hook, at most so long. Whether it is ready is asked until the end (kubelet, StopLivenessAndStartup)."""
        self._cancel_probes(STARTUP, LIVENESS)
        hook = self.spec.lifecycle.pre_stop if self.spec.lifecycle is not None else None
        if hook is None or seconds <= 0:
            return
        try:
            await asyncio.wait_for(self._run_hook(hook), seconds)
        except (ProbeFailed, TimeoutError) as error:
            why = str(error) or f"it did not end within the grace of {seconds:g} s"
            await self.pod.tell("FailedPreStopHook", f"PreStopHook failed: {why}", WARNING, self.part)

    async def _run_hook(self, hook: Handler) -> None:
        with failing(f"hook of container={self.spec.name} pod={self.pod.path}"):
            await self._ask(hook, self.pod.prober(self))

    async def _ask(self, hook: Handler, prober: Prober) -> None:
        if hook.exec is not None:
            await prober.command(hook.exec.command, HOOK_SECONDS)
        elif hook.http_get is not None:
            if warning := await prober.hook(hook.http_get):
                await self.pod.tell("LifecycleHTTPFallback", warning, WARNING, self.part)
        elif hook.tcp_socket is not None:
            await prober.tcp(hook.tcp_socket)
        elif hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)

    def _cancel_probes(self, *names: str) -> None:
        for name in names:
            if (task := self._probes.pop(name, None)) is not None:
                task.cancel()

    def _ended(self, process: Process, future: asyncio.Future[int]) -> None:
        """Its process has ended: say how, and when it starts again."""
        if self.process is not process or future.cancelled():
            return
        self._cancel_probes(STARTUP, READINESS, LIVENESS)
        self._stopping = None
        state, code = self.state, future.result()
        self.process = None
        if self.output is not None:
            self.output.close()
            self.output = None
        lacked_memory = self._group is not None and cgroups.end(self._group)
        if process.refused:
            state.state, state.reason, state.message = WAITING, ConfigError.reason, process.error
            self.restart_at = self.pod.clock() + CONFIG_RETRY_SECONDS
            self.pod.wake()
            return
        state.exit_code, state.finished_at = code, timestamp()
        state.started_at = state.started_at or state.finished_at
        state.state, state.reason = TERMINATED, "Completed" if code == 0 else "Error"
        if lacked_memory and code:
            state.reason = "OOMKilled"
        state.message = self._last_words(process, code)
        state.started = state.ready = False
        if why := process.error or (self._killed_at_start(process) if lacked_memory else ""):
            state.reason, state.message, state.exit_code = START_ERROR, why, START_ERROR_CODE
        if self.pod.restarts(self, code):
            if self.pod.clock() - self._began > FORGIVEN_AFTER_SECONDS:
                self.failures = 0
            self.restart_at = self.pod.clock() + BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS) - 1)]
            self.failures += 1
        self.pod.wake()

    def _killed_at_start(self, process: Process) -> str:
        """What there is to say of one that was killed for want of memory (runc, "container init was OOM-killed")."""
        if process.ran:
            return ""
        limit = self.spec.resources.get("limits", {}).get("memory")
        return "it was killed for want of memory before it ran" + (f": its limit of {limit} is too low" if limit else "")

    def _last_words(self, process: Process, code: int) -> str:
        """The container's termination message: what it wrote to its file, or the end of its log if it failed and wants that."""
        text = process.last_words
        if not text and code and self.spec.termination_message_policy == "FallbackToLogsOnError":
            text = _end_of(self.pod.log_file(self.spec.name, self.state.restarts))
        return text.decode(errors="replace")

    async def restart_if_due(self) -> None:
        """Start it again when that is due; until then say that it waits."""
        state = self.state
        if self.restart_at is None:
            return
        if state.state == TERMINATED:
            state.last = state.details()
        due = self.restart_at <= self.pod.clock()
        if state.state == TERMINATED and not due:
            wait = f"{self.restart_at - self.pod.clock():.0f}s"
            state.message = f"back-off {wait} restarting failed container={self.spec.name} pod={self.pod.path}"
            state.state, state.reason = WAITING, "CrashLoopBackOff"
            text = f"Back-off restarting failed container {self.spec.name} in pod {self.pod.path}"
            await self.pod.tell("BackOff", text, WARNING, self.part)
        elif state.reason == "ErrImagePull" and not due:
            state.reason, text = "ImagePullBackOff", f'Back-off pulling image "{self.spec.image}"'
            state.message = f"{text}: ErrImagePull: {state.message}"
            await self.pod.tell("BackOff", text, NORMAL, self.part)
        elif due:
            if state.last is not None and state.reason not in NEVER_BEGAN:
                state.restarts += 1
            await self.start()


HOOK_SECONDS = 3600.0
"""A command of a hook is bounded by the pod's grace; this bounds that of postStart."""


def _end_of(path: Path) -> bytes:
    """The last 80 lines, or 2 KiB, of a log."""
    try:
        lines = path.read_bytes()[-16384:].splitlines()[-80:]
    except OSError:
        return b""
    return b"\n".join(line.split(b" ", 3)[-1] for line in lines)[-2048:]


def utc_now() -> datetime.datetime:
    """Now."""
    return datetime.datetime.now(datetime.UTC)


def timestamp() -> str:
    """Now, as the API writes it."""
    return utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")


def after_restart_of_node(container: Container, role: str, before: Mapping[str, Any], policy: str) -> ContainerState:
    """What is known of a container whose node was started again: `before` is its last ContainerStatus, or empty.

    Its pod's restart policy says whether it stays ended or is started again (kuberuntime, computePodActions without a sandbox).
    """
    state = ContainerState(container.name, container.image, role)
    state.restarts = before.get("restartCount", 0)
    end = _last_end(before)
    if end is None:
        return state
    if WAITING not in before["state"] and _stays_ended(role, policy, end.get("exitCode", 0)):
        state.take_end(end)
    else:
        state.last, state.restarts = end, state.restarts + 1
    return state


def _last_end(before: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ContainerStateTerminated of the run before; None when there was none."""
    ran = before.get("state", {})
    if RUNNING in ran:
        began = ran[RUNNING].get("startedAt", "")
        lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": began, "finishedAt": timestamp()}
        return {**lost, "message": "The node of this container was stopped.", "containerID": before.get("containerID", "")}
    found: Mapping[str, Any] | None = ran.get(TERMINATED) or before.get("lastState", {}).get(TERMINATED)
    return found


def _stays_ended(role: str, policy: str, code: int) -> bool:
    return policy == "Never" or role == EPHEMERAL or (policy == "OnFailure" and role == MAIN and code == 0)
