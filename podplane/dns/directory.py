"""What the cluster's names are made of, as its zones read it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from podplane.model.dns import NamedService, NamedSlice
from podplane.model.objects import Model

M_co = TypeVar("M_co", bound=Model, covariant=True)


class Index(Protocol[M_co]):
    """Objects by something that they have."""

    def get(self, key: str, /) -> Mapping[str, M_co] | None:
        """Those that have it, by path; empty or None when there are none."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A façade over the caches of the process; only read."""

    namespaces: Container[str] = ()
    services: Mapping[str, NamedService] = field(default_factory=dict)
    services_by_ip: Index[NamedService] = field(default_factory=dict)
    slices_by_service: Index[NamedSlice] = field(default_factory=dict)
    slices_by_ip: Index[NamedSlice] = field(default_factory=dict)
