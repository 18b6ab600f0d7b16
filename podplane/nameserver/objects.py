"""The cluster's objects that names are made of, kept current by watches; whoever keeps answers is told which may not be true any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from podplane.dns.directory import Directory
from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer
from podplane.model.dns import NamedService, NamedSlice
from podplane.model.objects import Namespace

Changed = Callable[[str], None]
"""Told a key of what changed, as `Answer.depends` has them: `service/default/web`, `namespace/default`, `ip/10.96.0.1`."""


class Objects:
    """Informers and the directory over their caches."""

    def __init__(self, client: Client) -> None:
        self._services = Informer(client, "services", NamedService)
        self._slices = Informer(client, "endpointslices.discovery.k8s.io", NamedSlice)
        self._namespaces = Informer(client, "namespaces", Namespace)
        self.directory = Directory(
            namespaces=self._namespaces.objects,
            services=self._services.objects,
            services_by_ip=self._services.index(lambda service: service.ips),
            slices_by_service=self._slices.index(lambda one: (one.service,) if one.service else ()),
            slices_by_ip=self._slices.index(_addresses),
        )

    def subscribe(self, changed: Changed) -> None:
        """Tell the keys of every change from now on."""

        def of_service(old: NamedService | None, new: NamedService | None) -> None:
            for one in (old, new):
                if one is not None:
                    changed(f"service/{one.metadata.path}")
                    for ip in one.ips:
                        changed(f"ip/{ip}")

        def of_slice(old: NamedSlice | None, new: NamedSlice | None) -> None:
            for path in {one.service for one in (old, new) if one is not None}:
                changed(f"service/{path}")
            for ip in {ip for one in (old, new) if one is not None for ip in _addresses(one)}:
                changed(f"ip/{ip}")

        def of_namespace(old: Namespace | None, new: Namespace | None) -> None:
            if old is None or new is None:
                changed(f"namespace/{(old or new).metadata.name}")  # type: ignore[union-attr]  # one of them is there

        self._services.subscribe(of_service)
        self._slices.subscribe(of_slice)
        self._namespaces.subscribe(of_namespace)

    @property
    def informers(self) -> tuple[Informer[NamedService], Informer[NamedSlice], Informer[Namespace]]:
        """All caches."""
        return self._services, self._slices, self._namespaces

    async def sync(self) -> None:
        """List everything. ApiError when that can't be had."""
        await asyncio.gather(*(informer.sync() for informer in self.informers))

    @property
    def watches(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What keeps them current, by name: to be run by a supervisor."""
        return {f"watch of {informer.resource}": informer.run for informer in self.informers}


def _addresses(slice_: NamedSlice) -> Iterable[str]:
    """The addresses of endpoints that have a name of their own."""
    return {ip for endpoint in slice_.endpoints or () if endpoint.hostname for ip in endpoint.addresses}
