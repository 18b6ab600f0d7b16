"""Offers the node's name server to the cluster: keeps the EndpointSlices of this node for the DNS Service as they shall be.

Whatever changes them is undone, and what the API does not take is tried again. Nothing is written while the cache has what is wanted, so
neither an agent that starts again nor a watch that lists again writes anything.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from podplane.agent.keys import NodeKey
from podplane.agent.planner import NOT_APPLIED, RecordEvent
from podplane.dns import endpoints
from podplane.dns.endpoints import NAMESPACE, Manifest
from podplane.dns.node import SERVICE, is_own
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, Conflict, NotFound
from podplane.kubeapi.keeping import HIGHEST_SECONDS, keep
from podplane.kubeapi.retry import FailureLog
from podplane.model.service import Endpoint, EndpointSlice
from podplane.model.view import View

log = logging.getLogger(__name__)
SLICES = "endpointslices.discovery.k8s.io"


class ForeignSlice(Exception):
    """Somebody else's slice has the name of ours."""


class NameServerEndpoints(msgspec.Struct, eq=False):
    """The slices of one node; its methods run on one event loop. `is_served`: shall the node have a name server at all?"""

    view: View
    client: Client
    record_event: RecordEvent
    is_served: bool
    answers: bool | None = None
    """Does the name server answer? Nothing is written before that is known."""
    ends: bool = False
    """Does it end, and answer what is asked until then?"""
    _wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def changed(self) -> None:
        """Look again: something that this is about changed."""
        self._wake.set()

    def is_about(self, slice_: EndpointSlice) -> bool:
        """Is this one of the slices of this node, by its name?"""
        return slice_.metadata.namespace == NAMESPACE and slice_.metadata.name in self._names

    @property
    def _names(self) -> list[str]:
        return [endpoints.name_of(self.view.node_name, version) for version in endpoints.VERSIONS]

    @property
    def is_offered(self) -> bool:
        """Does the Service lead to this node's server still, as far as is known here?"""
        return any(end.is_ready for end in self._known)

    @property
    def is_in_use(self) -> bool:
        """May what was led here before go on, likewise?"""
        return any(end.serves for end in self._known)

    @property
    def _known(self) -> list[Endpoint]:
        known = self.view.slices.get(SERVICE) or {}
        own = (known.get(f"{NAMESPACE}/{name}") for name in self._names)
        return [end for slice_ in own if slice_ is not None for end in slice_.endpoints or ()]

    async def run(self) -> None:
        """Keep them until cancelled."""
        await keep(self._wake, self._step, FailureLog(log, f"endpoints node={self.view.node_name}"))

    async def _step(self, now: float) -> float | None:
        try:
            await self.reconcile()
        except ForeignSlice as error:
            self.record_event(NodeKey(self.view.node_name), str(error), NOT_APPLIED)
            return HIGHEST_SECONDS
        return None

    async def reconcile(self) -> None:
        """Write what is not as it shall be. ApiError when that can't be done, ForeignSlice when somebody else has a slice of that name."""
        node, is_served = self.view.registered, self.is_served and self.view.may_answer_names
        if is_served and (node is None or self.answers is None):
            return
        wanted = endpoints.wanted(node, answers=bool(self.answers), ends=self.ends) if node is not None and is_served else {}
        known, foreign = self.view.slices.get(SERVICE) or {}, ""
        for name in self._names:
            try:
                await self._write(name, wanted.get(name), known.get(f"{NAMESPACE}/{name}"))
            except ForeignSlice as error:
                foreign = str(error)
        if foreign:
            raise ForeignSlice(foreign)

    async def _write(self, name: str, manifest: Manifest | None, found: EndpointSlice | None) -> None:
        """One slice; `found` is what the cache has, which may lag behind what was written last."""
        if manifest is None:
            if found is not None and is_own(found):
                await self._delete(name, found)
            return
        if found is None:
            try:
                await self.client.create(SLICES, NAMESPACE, manifest)
                return
            except AlreadyExists:
                found = msgspec.convert(await self.client.get(SLICES, NAMESPACE, name), EndpointSlice)
        if not is_own(found):
            raise ForeignSlice(
                f"the name server of {self.view.node_name} is not offered to other nodes: the EndpointSlice {name} is not podplane's: "
                f"kubectl -n {NAMESPACE} delete endpointslice {name}"
            )
        if not endpoints.is_as_wanted(found, manifest):
            await self._patch(name, manifest, found)

    async def _patch(self, name: str, manifest: Manifest, found: EndpointSlice) -> None:
        body = {**manifest, "metadata": {key: value for key, value in manifest["metadata"].items() if key != "name"}}
        try:
            await self.client.patch(SLICES, NAMESPACE, name, body, uid=found.metadata.uid)
        except (NotFound, Conflict):  # it went meanwhile, or another one came
            await self._write(name, manifest, None)

    async def _delete(self, name: str, found: EndpointSlice) -> None:
        try:
            await self.client.delete(SLICES, NAMESPACE, name, uid=found.metadata.uid)
        except (NotFound, Conflict):
            return
