"""A kubelet's sign of life: the Lease of its node, the node's own conditions, and what pods can have of what others say it has.

Sources: KEP-589 (node leases); kubelet, nodestatus setters; "Advertise Extended Resources for a Node".
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, ApiError, Conflict, NotFound
from podplane.model.config import HEARTBEAT_SECONDS
from podplane.model.objects import Node

log = logging.getLogger(__name__)
LEASES, NAMESPACE = "leases.coordination.k8s.io", "kube-node-lease"
RENEWALS = 4
"""A Lease lasts as long as so many intervals of renewal (kubelet, nodeLeaseRenewIntervalFraction)."""
HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
"""(type, status, reason, message) of the conditions that it reports."""
OWN = frozenset(kind for kind, *_ in HEALTHY)


class Heartbeat(msgspec.Struct, eq=False):
    """The heartbeat of one node."""

    client: Client
    node: Node
    now: Callable[[], datetime.datetime]
    machine: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """What it says of its machine: the fields of NodeStatus but for the conditions. Whoever writes something else has it corrected with the
    next beat, as with a kubelet."""
    is_reported: bool = False
    """Has the node its kubelet's conditions, of now? Else the first beat reports them."""
    interval: float = HEARTBEAT_SECONDS
    """Seconds from beat to beat."""
    _lease: str = ""
    _wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def node_changed(self, node: Node) -> None:
        """The node's object changed: when its status is not what the kubelet says, or it is a new one, beat at once."""
        if node.metadata.uid != self.node.metadata.uid:
            self._lease = ""
        self.node = node
        if not self._lease or not self._is_said:
            self._wake.set()

    @property
    def _is_said(self) -> bool:
        """Does the status say what the kubelet has to say?"""
        status = self.node.status
        return self.node.is_ready and status.extended_allocatable == status.extended_capacity

    @property
    def _has_conditions(self) -> bool:
        return {one.type for one in self.node.status.conditions} >= OWN

    @property
    def _is_of_machine(self) -> bool:
        """Does the status have the addresses and resources of the machine?"""
        status = self.node.status
        addresses = [{"type": one.type, "address": one.address} for one in status.addresses]
        return addresses == list(self.machine.get("addresses", addresses)) and all(
            self.machine.get(name, {}).items() <= had.items()
            for name, had in (("capacity", status.capacity), ("allocatable", status.allocatable))
        )

    async def run(self) -> None:
        """Beat until cancelled. Many nodes that begin at once don't go on in step."""
        seconds = self.interval * random.random()
        while True:
            self._wake.clear()
            try:
                uid = self.node.metadata.uid
                await self.beat()
                if self._lease and self._is_said and self.node.metadata.uid == uid:
                    self._wake.clear()  # it has done what it was woken for meanwhile
            except ApiError as error:
                log.warning("heartbeat node=%s error=%s", self.node.metadata.name, error)
            try:
                await asyncio.wait_for(self._wake.wait(), seconds)
            except TimeoutError:
                pass
            seconds = self.interval

    async def beat(self) -> None:
        """Renew the Lease, and correct the status. ApiError when that can't be now."""
        if not (self.is_reported and self._has_conditions and self._is_said and self._is_of_machine):
            await self._report()
        name = self.node.metadata.name
        spec = {"renewTime": self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        try:
            if self._lease:
                await self.client.patch(LEASES, NAMESPACE, name, {"spec": spec}, uid=self._lease)
                return
        except (NotFound, Conflict):
            self._lease = ""
        self._lease = (await self._acquire(name, spec))["metadata"]["uid"]

    async def _acquire(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Make the Lease, or take over the one that is there."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self.node.metadata.uid}
        lease = {
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {**spec, "holderIdentity": name, "leaseDurationSeconds": math.ceil(RENEWALS * self.interval)},
        }
        try:
            return await self.client.create(LEASES, NAMESPACE, lease)
        except AlreadyExists:
            found = await self.client.get(LEASES, NAMESPACE, name)
            return await self.client.patch(LEASES, NAMESPACE, name, lease, uid=found["metadata"]["uid"])

    async def _report(self) -> None:
        """Say how the node is; conditions of others stay, and what they say that it has can be had."""
        node = await self.client.get("nodes", "", self.node.metadata.name)
        now = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        found = with_own(node.get("status", {}).get("conditions", ()), now)
        had: dict[str, str | None] = dict.fromkeys(self.node.status.extended_allocatable)
        can_be_had = {**self.machine.get("allocatable", {}), **had, **self.node.status.extended_capacity}
        said = {**self.machine, "conditions": found, "allocatable": can_be_had}
        await self.client.patch_status("nodes", "", node["metadata"]["name"], said, node["metadata"]["uid"])
        self.is_reported = True


def with_own(conditions: Iterable[Mapping[str, str]], now: str) -> list[dict[str, str]]:
    """Conditions of a node with those that its kubelet reports; those of others stay."""
    before = {one["type"]: dict(one) for one in conditions}
    found = [condition for kind, condition in before.items() if kind not in OWN]
    for kind, status, reason, message in HEALTHY:
        old = before.get(kind, {})
        since = old.get("lastTransitionTime", now) if old.get("status") == status else now
        times = {"lastHeartbeatTime": now, "lastTransitionTime": since}
        found.append({"type": kind, "status": status, "reason": reason, "message": message, **times})
    return found
