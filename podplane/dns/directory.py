"""What the cluster's names are made of, as its zones read it, and the keys by which answers say what they were made of."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from podplane.model.dns import NamedPod, NamedService, NamedSlice
from podplane.model.objects import Model

M_co = TypeVar("M_co", bound=Model, covariant=True)
SERIAL = "serial"
"""The key of answers that tell the zone's serial number: any change changes it."""
POD_IP = "pod-ip/"
"""What keys of `pod_ip_key` begin with."""
ALWAYS = "zone"
"""The key of answers that hold as long as the zone's settings do."""


class Index(Protocol[M_co]):
    """Objects by something that they have."""

    def get(self, key: str, /) -> Mapping[str, M_co] | None:
        """Those that have it, by path; empty or None when there are none."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A façade over the caches of the process; only read. Addresses are in their shortest form (`model.dns.canonical`).

    `slices_by_hostname` has keys of `hostname_key`. `serial` is the serial number of what there is: it grows with each change.
    """

    namespaces: Container[str] = ()
    services: Mapping[str, NamedService] = field(default_factory=dict)
    services_by_ip: Index[NamedService] = field(default_factory=dict)
    slices_by_service: Index[NamedSlice] = field(default_factory=dict)
    slices_by_hostname: Index[NamedSlice] = field(default_factory=dict)
    slices_by_ip: Index[NamedSlice] = field(default_factory=dict)
    pods_by_ip: Index[NamedPod] = field(default_factory=dict)
    serial: Callable[[], int] = lambda: 1


def hostname_key(service: str, hostname: str) -> str:
    """What a slice is found by that has an endpoint of this host name; `service` is `namespace/name`."""
    return f"{service}/{hostname}"


def service_key(path: str) -> str:
    """Changes with a Service and its slices."""
    return f"service/{path}"


def namespace_key(name: str) -> str:
    """Changes when a namespace comes or goes."""
    return f"namespace/{name}"


def ip_key(ip: str) -> str:
    """Changes when an address becomes that of another Service or endpoint."""
    return f"ip/{ip}"


def pod_ip_key(ip: str) -> str:
    """Changes when an address becomes that of another pod, and when a pod that has it changes."""
    return f"{POD_IP}{ip}"
