"""All backends, by the name that settings have for them."""

from __future__ import annotations

from podplane.routes import auto, host_gw, vxlan
from podplane.routes.backend import Backend

BACKENDS: tuple[Backend, ...] = (host_gw.BACKEND, vxlan.BACKEND, auto.BACKEND)
BY_NAME = {backend.name: backend for backend in BACKENDS}


def backend(name: str) -> Backend:
    """The backend of this name. ValueError, which lists the known ones, for any other."""
    if name not in BY_NAME:
        raise ValueError(f"there is no backend {name!r}: choose one of {', '.join(BY_NAME)}")
    return BY_NAME[name]
