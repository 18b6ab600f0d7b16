"""The further interfaces of pods on a node: `NodeAgent` asks for them when it attaches a pod's own, and detaches them with it.

A pod asks by an annotation, networks are NetworkAttachmentDefinitions. Both are read when the pod comes: what changes later is not looked
at. Either a pod gets all, or it is not attached at all. What it got is written to another annotation.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection

from podplane.agent.attachments import Attachments
from podplane.agent.delegation import Plugins
from podplane.cni.additional import STATUS, Chain, Interface, Selection, network, network_status, selections
from podplane.cni.network import Attached, Attachment, FurtherNetworkError, NetworkError, TryAgainError
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.model.config import NetworkConfig
from podplane.model.view import NO_LIMITS, BridgeNetwork
from podplane.pods.additional import why_refused

log = logging.getLogger(__name__)
DEFINITIONS = "network-attachment-definitions.k8s.cni.cncf.io"


class FurtherInterfaces:
    """Attaches and detaches them, over a node's attachments."""

    def __init__(
        self,
        client: Client,
        config: NetworkConfig,
        asked: Callable[[str], str],
        node_ips: Callable[[], Collection[str]],
        plugins: Plugins | None = None,
    ) -> None:
        """`asked` is the annotation of a pod, by its path; "" for none. `node_ips` are the node's own addresses. `plugins` calls those of
        others, where the agent can."""
        self._client = client
        self._config = config
        self._asked = asked
        self._node_ips = node_ips
        self._plugins = plugins

    async def networks(self, request: Attachment) -> list[tuple[Selection, BridgeNetwork | Chain]]:
        """What the pod of an attachment asks for, if that is its own interface. NetworkError when it can't be had, or is not known."""
        if request.further is not None or not request.namespace:
            return []
        text = self._asked(f"{request.namespace}/{request.name}")
        if not text.strip():
            return []
        try:
            return [(one, await self._network(one)) for one in selections(text, request.namespace)]
        except ValueError as error:
            raise NetworkError(f"{request.who}: {error}") from None

    async def _network(self, one: Selection) -> BridgeNetwork | Chain:
        try:
            found = await self._client.get(DEFINITIONS, one.namespace, one.name)
        except NotFound:
            raise ValueError(f"there is no NetworkAttachmentDefinition {one.path}: create it, and the pod starts") from None
        except ApiError as error:
            raise TryAgainError(f"NetworkAttachmentDefinition {one.path} can't be read: {error}") from None
        spec = found.get("spec")
        config = spec.get("config") if isinstance(spec, dict) else ""
        wanted = network(one.path, config if isinstance(config, str) else "")
        if why := self._why_not_had(wanted, one):
            raise ValueError(f"NetworkAttachmentDefinition {one.path}: {why}")
        return wanted

    def _why_not_had(self, wanted: BridgeNetwork | Chain, one: Selection) -> str:
        return (
            self._why_not_called(wanted, one)
            if isinstance(wanted, Chain)
            else why_refused(wanted, self._config, self._node_ips())
        )

    def _why_not_called(self, chain: Chain, one: Selection) -> str:
        if self._plugins is None:
            return (
                f"its type is {chain.types[0]!r}: other plugins are called by agents that are processes (up --agents processes)"
            )
        return self._plugins.why_refused(chain, one)

    async def add(
        self,
        attachments: Attachments,
        request: Attachment,
        own: Attached,
        wanted: Collection[tuple[Selection, BridgeNetwork | Chain]],
    ) -> None:
        """Attach all of a pod that has its own interface. NetworkError when that can't be; what there is is left to `delete`."""
        try:
            further = [
                Interface(one.path, await self._attach(attachments, request, one, definition)) for one, definition in wanted
            ]
        except NetworkError as error:
            raise FurtherNetworkError(str(error)) from None
        if wanted:
            await self._tell(request, network_status(own, further))

    async def _attach(
        self, attachments: Attachments, request: Attachment, selection: Selection, definition: BridgeNetwork | Chain
    ) -> Attached:
        if isinstance(definition, Chain):
            assert self._plugins is not None
            return await self._plugins.add(definition, selection, request)
        asked = dataclasses.replace(
            request,
            ifname=selection.ifname,
            further=definition,
            requested_ips=(),
            asked_ips=selection.ips,
            mac=selection.mac,
            host_ports=(),
            bandwidth=NO_LIMITS,
        )
        return await attachments.add(asked)

    async def delete(self, request: Attachment) -> None:
        """Have what other plugins made for a pod undone, with its own interface. NetworkError when they can't."""
        if self._plugins is not None and request.further is None:
            await self._plugins.delete(request.container_id)

    async def check(self, request: Attachment) -> None:
        """NetworkError unless that is as it should be."""
        if self._plugins is not None and request.further is None:
            await self._plugins.check(request)

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Have undone what is of none of these."""
        if self._plugins is not None:
            await self._plugins.gc({one.container_id for one in keep})

    async def _tell(self, request: Attachment, status: str) -> None:
        body = {"metadata": {"annotations": {STATUS: status}}}
        try:
            await self._client.patch("pods", request.namespace, request.name, body, uid=request.pod_uid)
        except ApiError as error:  # the pod has its networks all the same
            log.warning("network status pod=%s/%s error=%s", request.namespace, request.name, error)


def further_of(attachments: Attachments, request: Attachment) -> list[Attachment]:
    """The further interfaces of the pod whose own interface this is."""
    if request.further is not None:
        return []
    return [one for one in attachments.attachments() if one.further is not None and one.container_id == request.container_id]
