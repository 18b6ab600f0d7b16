"""The cluster's objects that names are made of, kept current by watches; whoever keeps answers is told which may not be true any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from podplane.dns.directory import SERIAL, Directory, hostname_key, ip_key, namespace_key, pod_ip_key, service_key
from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.retry import Backoff
from podplane.model.dns import NamedPod, NamedService, NamedSlice
from podplane.model.objects import Namespace
from podplane.model.phases import ENDED

M = TypeVar("M")
Changed = Callable[[str], None]
"""Told a key of what changed, as `Answer.depends` has them (see `dns.directory`)."""
NOT_ENDED = ",".join(f"status.phase!={phase}" for phase in ENDED)
MAX_SERIAL = 0xFFFFFFFF
HIGHEST_SECONDS = 3.0
"""Between two tries to reach the API: however long it was away, names are right again soon after."""


def backoff() -> Backoff:
    """That of an informer of a name server."""
    return Backoff(highest=HIGHEST_SECONDS)


class Objects:
    """Informers and the directory over their caches. `clock` gives the time in seconds since 1970: the serial number is that of the last
    change, or one more than the last, so that each change has its own."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.time) -> None:
        self._services = Informer(client, "services", NamedService, backoff=backoff())
        self._slices = Informer(client, "endpointslices.discovery.k8s.io", NamedSlice, backoff=backoff())
        self._namespaces = Informer(client, "namespaces", Namespace, backoff=backoff())
        self._pods = Informer(client, "pods", NamedPod, fields=NOT_ENDED, backoff=backoff())
        self._clock = clock
        self._serial = int(clock())
        self._changed: list[Changed] = []
        self.directory = Directory(
            namespaces=self._namespaces.objects,
            services=self._services.objects,
            services_by_ip=self._services.index(lambda service: service.ips),
            slices_by_service=self._slices.index(lambda one: (one.service,) if one.service else ()),
            slices_by_hostname=self._slices.index(_hostnames),
            slices_by_ip=self._slices.index(_addresses),
            pods_by_ip=self._pods.index(_pod_addresses),
            serial=lambda: self._serial,
        )
        self._services.subscribe(lambda old, new: self._tell(_keys_of_service, old, new))
        self._slices.subscribe(lambda old, new: self._tell(_keys_of_slice, old, new))
        self._pods.subscribe(lambda old, new: self._tell(_keys_of_pod, old, new))
        self._namespaces.subscribe(self._namespace_changed)

    def subscribe(self, changed: Changed) -> None:
        """Tell the keys of every change from now on, when the directory has it."""
        self._changed.append(changed)

    def _tell(self, keys: Callable[[M], Iterator[str]], old: M | None, new: M | None) -> None:
        self._serial = max(self._serial + 1, int(self._clock())) & MAX_SERIAL
        for key in {SERIAL, *(key for one in (old, new) if one is not None for key in keys(one))}:
            for changed in self._changed:
                changed(key)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if old is None or new is None:  # of a namespace only its name matters
            self._tell(lambda one: iter((namespace_key(one.metadata.name),)), old, new)

    @property
    def informers(self) -> tuple[Informer[NamedService], Informer[NamedSlice], Informer[Namespace], Informer[NamedPod]]:
        """All caches."""
        return self._services, self._slices, self._namespaces, self._pods

    async def sync(self) -> None:
        """List everything. ApiError when that can't be had."""
        await asyncio.gather(*(informer.sync() for informer in self.informers))

    @property
    def watches(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What keeps them current, by name: to be run by a supervisor."""
        return {f"watch of {informer.resource}": informer.run for informer in self.informers}


def _keys_of_service(service: NamedService) -> Iterator[str]:
    yield service_key(service.metadata.path)
    yield from map(ip_key, service.ips)


def _keys_of_slice(slice_: NamedSlice) -> Iterator[str]:
    yield service_key(slice_.service)
    yield from map(ip_key, _addresses(slice_))


def _keys_of_pod(pod: NamedPod) -> Iterator[str]:
    yield from map(pod_ip_key, pod.ips)


def _hostnames(slice_: NamedSlice) -> Iterable[str]:
    return {hostname_key(slice_.service, endpoint.hostname) for endpoint in slice_.endpoints if endpoint.hostname}


def _addresses(slice_: NamedSlice) -> Iterable[str]:
    return {endpoint.ip for endpoint in slice_.endpoints} if slice_.service else ()


def _pod_addresses(pod: NamedPod) -> Iterable[str]:
    return () if pod.is_ended else pod.ips
