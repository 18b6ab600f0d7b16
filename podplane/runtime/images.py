"""Images without a registry: a literal table of built-in programs, and this machine's own commands."""

from __future__ import annotations

from podplane.model.pod import Container
from podplane.runtime.programs import ECHO_IMAGE, HOST_PREFIX, PROGRAMS


class ImageError(Exception):
    """No program for this image; one line that says what would work."""


def command_of(container: Container) -> list[str]:
    """What to run for a container: a built-in program, or a command of the machine. ImageError for any other image."""
    words = [*container.command, *container.args]
    if container.image in PROGRAMS:
        return words if container.command else [container.image, *container.args]
    if not container.image.startswith(HOST_PREFIX):
        known = f"{ECHO_IMAGE}, or {HOST_PREFIX}<anything> with a command of this machine"
        raise ImageError(f"image {container.image!r} is not here, a lab has no registry: use {known}")
    if not words:
        raise ImageError(f"image {container.image!r} stands for this machine: give a command to run")
    return words
