"""All backends, by the name that settings have for them."""

from __future__ import annotations

from podplane.routes import cross_subnet, gre, host_gw, vxlan
from podplane.routes.backend import Backend

CHOICES: tuple[Backend, ...] = (host_gw.BACKEND, vxlan.BACKEND, gre.BACKEND, cross_subnet.AUTO)
"""Those that one may ask for by name."""
BACKENDS: tuple[Backend, ...] = (*CHOICES, *cross_subnet.PAIRS)
BY_NAME = {backend.name: backend for backend in BACKENDS}
NAMES = tuple(backend.name for backend in CHOICES)


def backend(name: str) -> Backend:
    """The backend of this name. ValueError, which lists those that one may ask for, for one that there is not."""
    if name not in BY_NAME:
        raise ValueError(f"there is no backend {name!r}: choose one of {', '.join(NAMES)}")
    return BY_NAME[name]


def chosen(name: str, tunnel: str = "") -> Backend:
    """The backend that was asked for, host-gw together with a tunnel to nodes of other subnets. ValueError for what one can't ask for."""
    if name not in NAMES:
        raise ValueError(f"there is no backend {name!r}: choose one of {', '.join(NAMES)}")
    return backend(cross_subnet.name_of(name, tunnel))
