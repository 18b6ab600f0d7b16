"""The further interfaces of pods on a node: `NodeAgent` asks for them when it attaches a pod's own, and detaches them with it.

A pod asks by an annotation, networks are NetworkAttachmentDefinitions. Both are read when the pod comes: what changes later is not looked
at. Either a pod gets all, or it is not attached at all. What it got is written to another annotation.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection

from podplane.agent.attachments import Attachments
from podplane.cni.additional import STATUS, Interface, Selection, bridge_network, network_status, selections
from podplane.cni.network import Attached, Attachment, NetworkError, TryAgainError
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.model.config import NetworkConfig
from podplane.model.view import NO_LIMITS, BridgeNetwork
from podplane.pods.additional import why_refused

log = logging.getLogger(__name__)
DEFINITIONS = "network-attachment-definitions.k8s.cni.cncf.io"


class FurtherInterfaces:
    """Attaches and detaches them, over a node's attachments."""

    def __init__(self, client: Client, config: NetworkConfig, asked: Callable[[str], str]) -> None:
        """`asked` is the annotation of a pod, by its path; "" for none."""
        self._client = client
        self._config = config
        self._asked = asked

    async def networks(self, request: Attachment) -> list[tuple[Selection, BridgeNetwork]]:
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

    async def _network(self, one: Selection) -> BridgeNetwork:
        try:
            found = await self._client.get(DEFINITIONS, one.namespace, one.name)
        except NotFound:
            raise ValueError(f"there is no NetworkAttachmentDefinition {one.path}: create it, and the pod starts") from None
        except ApiError as error:
            raise TryAgainError(f"NetworkAttachmentDefinition {one.path} can't be read: {error}") from None
        spec = found.get("spec")
        config = spec.get("config") if isinstance(spec, dict) else ""
        network = bridge_network(one.path, config if isinstance(config, str) else "")
        if why := why_refused(network, self._config):
            raise ValueError(f"NetworkAttachmentDefinition {one.path}: {why}")
        return network

    async def add(
        self, network: Attachments, request: Attachment, own: Attached, wanted: Collection[tuple[Selection, BridgeNetwork]]
    ) -> None:
        """Attach all of a pod that has its own interface. NetworkError when that can't be; what there is is left to `delete`."""
        further = []
        for selection, definition in wanted:
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
            further.append(Interface(selection.path, await network.add(asked)))
        if wanted:
            await self._tell(request, network_status(own, further))

    async def _tell(self, request: Attachment, status: str) -> None:
        body = {"metadata": {"annotations": {STATUS: status}}}
        try:
            await self._client.patch("pods", request.namespace, request.name, body, uid=request.pod_uid)
        except ApiError as error:  # the pod has its networks all the same
            log.warning("network status pod=%s/%s error=%s", request.namespace, request.name, error)


def further_of(network: Attachments, request: Attachment) -> list[Attachment]:
    """The further interfaces of the pod whose own interface this is."""
    if request.further is not None:
        return []
    return [one for one in network.attachments() if one.further is not None and one.container_id == request.container_id]
