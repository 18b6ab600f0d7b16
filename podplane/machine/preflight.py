"""What has to be so before an agent changes anything on its machine: a table of checks over facts.

    facts (read, nothing is changed) ──► CHECKS ──► no line ──► the agent begins
                                               └──► a line each: event of the Node, /status, /readyz 503; looked at again

A node whose network is in place already goes on: what was found is told all the same, and its agent is not ready, so that a new version
does not go on to other nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from podplane.agent.ownership import ownership
from podplane.cni.networks import InstallError, check_free
from podplane.dns import resolv_conf
from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import Namespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine import permitted
from podplane.machine.confinement import denied
from podplane.machine.lacking import lacking
from podplane.machine.one_machine import OneMachine
from podplane.machine.overlaps import Surrounding, overlaps
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.model.words import lasting
from podplane.state.network import Link
from podplane.state.value import Value

RESOLV_CONF = Path("/etc/resolv.conf")
LEAST_BYTES = 1 << 20
"""Of free space in the run folder: the journal is written anew beside the former one."""
MOST_SKEW = 300.0
"""Seconds that two clocks may differ: with more, certificates and tokens that are good are taken for bad, here or there."""
ASK_SECONDS, ASK_AGAIN_SECONDS = 600.0, 30.0
"""Between two questions for rights of which none was missing, or some, or which the API did not answer."""
ANSWER_SECONDS = 3.0
"""The API's answer about rights is waited for as long."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the machine and of what it is to be: networks of pods and Services, what is around, what the kernel lacks (a line
    each), the network file that engines would take in place of podplane's ("" for none), the run folder and its free bytes, rights that
    are missing, the other machine with this Node, and the seconds that the machine's clock is ahead of the API's."""

    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    around: Surrounding = Surrounding()
    lacking: tuple[str, ...] = ()
    network_file: str = ""
    run_dir: str = ""
    free: int = LEAST_BYTES
    missing_rights: tuple[str, ...] = ()
    other_machine: str = ""
    skew: float = 0.0

    @property
    def is_in_place(self) -> bool:
        """Has podplane a link here already?"""
        return any(isinstance(one, Link) and self.around.own.owns_link(one.name, one.alias) for one in self.around.values)


def _overlaps(facts: Facts) -> Iterable[str]:
    return overlaps(facts.pods, facts.services, facts.around)


def _network_file(facts: Facts) -> Iterator[str]:
    if facts.network_file:
        yield f"container engines are not told of the network: {facts.network_file}"


def _space(facts: Facts) -> Iterator[str]:
    if facts.free < LEAST_BYTES:
        free, least = f"{facts.free >> 10} KiB", f"{LEAST_BYTES >> 20} MiB"
        yield f"no space left for {facts.run_dir}: {free} are free, and pods can't be attached without {least}: make room"


def _clock(facts: Facts) -> Iterator[str]:
    if abs(facts.skew) >= MOST_SKEW:
        where, minutes = "ahead of" if facts.skew > 0 else "behind", lasting(abs(facts.skew) // 60 * 60)
        yield f"the clock of this machine is {minutes} {where} the API's: set it (timedatectl, chronyc tracking)"


CHECKS: tuple[tuple[str, Callable[[Facts], Iterable[str]]], ...] = (
    ("one machine", lambda facts: [facts.other_machine] if facts.other_machine else []),
    ("rights", lambda facts: facts.missing_rights),
    ("kernel", lambda facts: facts.lacking),
    ("networks", _overlaps),
    ("network file", _network_file),
    ("space", _space),
    ("clock", _clock),
)
"""Name → lines about what is wrong."""


def problems(facts: Facts) -> list[str]:
    """What is wrong, in the order of the table."""
    return [line for _, check in CHECKS for line in check(facts)]


class Preflight:
    """Of one machine; `look` runs on an event loop. Each look reads everything anew, but for rights that were all there a moment ago."""

    def __init__(
        self,
        namespace: Namespace,
        client: Client,
        one: OneMachine,
        run_dir: str,
        conf_dir: str,
        api: str,
        skew: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`conf_dir` is where engines look for networks ("" where nothing is written there), `api` the host of the API; `skew` says how
        many seconds the clock of this machine was ahead of its clock at its last answer."""
        self._skew = skew
        self._namespace, self._client, self.one = namespace, client, one
        self._run_dir, self._conf_dir, self._api = run_dir, conf_dir, api
        self._ask_at = -1.0
        self._rights: list[str] = []

    def around(self, uplink: str, node: Node, values: Iterable[Value], allowed: Iterable[str]) -> Surrounding:
        """What there is beside podplane; `allowed` are networks that may overlap."""
        return Surrounding(
            values=tuple(values),
            uplink=uplink,
            node_ips=node.internal_ips,
            name_servers=_name_servers(),
            api=self._api,
            allowed=tuple(allowed),
        )

    async def look(
        self, network: NetworkConfig, pods: Iterable[str], node: Node, values: Iterable[Value], allowed: Iterable[str]
    ) -> Facts:
        """The facts. `pods` are the networks of pods, `allowed` those that may overlap."""
        around = self.around(network.uplink, node, values, allowed)
        facts = await asyncio.to_thread(self._machine)
        return msgspec.structs.replace(
            facts,
            pods=tuple(pods),
            services=network.service_cidrs,
            around=msgspec.structs.replace(around, own=ownership(network)),
            missing_rights=tuple(await self._missing_rights()),
            skew=self._skew(),
            other_machine=await self.one.problem(node, around.values),
        )

    def _machine(self) -> Facts:
        """What is read in a thread."""
        lacks: list[str]
        try:
            lacks = lacking(self._namespace)
        except (KernelError, OSError) as error:
            lacks = [denied(f"the kernel can't be asked what it has: {error}", error.errno)]
        return Facts(lacking=tuple(lacks), network_file=self._network_file(), run_dir=self._run_dir, free=_free(self._run_dir))

    def _network_file(self) -> str:
        if not self._conf_dir:
            return ""
        try:
            check_free(Path(self._conf_dir), replace=False)
        except InstallError as error:
            return str(error)
        except OSError as error:
            return denied(f"{error.filename}: {error.strerror}", error.errno)
        return ""

    async def _missing_rights(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            with contextlib.suppress(ApiError, TimeoutError):  # an API that is away says nothing of rights, and nobody waits
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._rights = await permitted.missing(self._client)
                is_well = not self._rights and abs(self._skew()) < MOST_SKEW
                self._ask_at = now + (ASK_SECONDS if is_well else ASK_AGAIN_SECONDS)
        return self._rights


def _name_servers() -> tuple[str, ...]:
    try:
        return resolv_conf.read(RESOLV_CONF.read_text(errors="replace")).nameservers
    except OSError:
        return ()


def _free(folder: str) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return LEAST_BYTES
    return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0
