"""What a lab has to have in the API of its nodes: each Node, as its machine is, and the Service and the endpoints of their name servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from podplane.agent.name_server import SLICES
from podplane.dns import endpoints
from podplane.dns.node import SERVICE
from podplane.ipam.plan import Plan
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import AlreadyExists, ApiError
from podplane.kubeapi.retry import Backoff
from podplane.lab import control_plane
from podplane.model.config import UNDERLAY_MAC
from podplane.model.objects import Node

log = logging.getLogger(__name__)


async def register(client: Client, manifest: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Create a node; one that is there, of a former run, learns what its machine is now, as when a kubelet starts again. The node, and
    whether it is new. ApiError."""
    try:
        return await client.create("nodes", "", manifest), True
    except AlreadyExists:
        name, labels = manifest["metadata"]["name"], manifest["metadata"]["labels"]
        uid = (await client.get("nodes", "", name))["metadata"]["uid"]
        metadata = {"labels": labels, "annotations": {UNDERLAY_MAC: manifest["metadata"]["annotations"][UNDERLAY_MAC]}}
        node = await client.patch("nodes", "", name, {"metadata": metadata}, uid=uid)
        await client.patch_status("nodes", "", name, machine_status(manifest), uid)
        return node, False


async def offer_name_server(client: Client, node: Mapping[str, Any]) -> None:
    """Offer the name server of a node with the node itself, as its agent would a moment later: then no agent plans anew for each of the
    others. What is there is the agent's. ApiError."""
    for manifest in endpoints.wanted(msgspec.convert(node, Node), answers=True).values():
        with contextlib.suppress(AlreadyExists):
            await client.create(SLICES, endpoints.NAMESPACE, manifest)


def machine_status(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a kubelet says of its machine: the status without the conditions."""
    return {key: value for key, value in manifest["status"].items() if key != "conditions"}


async def register_again(client: Client, manifest: Mapping[str, Any], is_there: Callable[[], bool]) -> None:
    """A node was deleted, and its machine still runs: it registers again as a kubelet does. While it can't (another one has its blocks),
    it tries again, until it `is_there`."""
    backoff, loop = Backoff(), asyncio.get_running_loop()
    while not is_there():
        try:
            await client.create("nodes", "", manifest)
        except AlreadyExists:
            return
        except ApiError as error:
            log.warning("register node=%s error=%s", manifest["metadata"]["name"], error)
            await asyncio.sleep(backoff.delay(loop.time()))
        else:
            return


async def create_dns_service(client: Client, plan: Plan) -> None:
    """Somebody deleted the Service of the cluster's DNS: pods ask at its address, which is to be no other Service's."""
    try:
        await client.create("services", endpoints.NAMESPACE, control_plane.dns_service(plan))
    except ApiError as error:
        log.warning("create service=%s error=%s", SERVICE, error)
