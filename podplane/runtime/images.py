"""Images without a registry: a literal table of built-in programs, and this machine's own commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from podplane.model.pod import Container
from podplane.runtime.programs import AGNHOST_IMAGE, CLIENT_IMAGE, ECHO_IMAGE, HOST_PREFIX, PROBE


class ImageError(Exception):
    """No program for this image; one line that says what would work."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built-in program as an image: its entry point, the words that it gets when the container says none, and other names of it.

    Where the words `replace` it, arguments are a command of the machine, as with images that have a shell and no entry point.
    """

    program: str
    default: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    replace: bool = False


ECHO, CLIENT, PROBER = Image(ECHO_IMAGE), Image(CLIENT_IMAGE, replace=True), Image(PROBE)
AGNHOST = Image(AGNHOST_IMAGE, ("pause",), ("/agnhost", "agnhost"))
PAUSE = Image(CLIENT_IMAGE, (), ("/pause", "pause"))
IMAGES = {
    ECHO_IMAGE: ECHO,
    CLIENT_IMAGE: CLIENT,
    AGNHOST_IMAGE: AGNHOST,
    PROBE: PROBER,
    "registry.k8s.io/e2e-test-images/agnhost": AGNHOST,
    "k8s.gcr.io/e2e-test-images/agnhost": AGNHOST,
    "gcr.io/kubernetes-e2e-test-images/agnhost": AGNHOST,
    "registry.k8s.io/pause": PAUSE,
    "k8s.gcr.io/pause": PAUSE,
}
"""By name without tag and digest; the last ones are the published names of agnhost and pause."""
TAG = re.compile(r"(@[\w.+-]+:[0-9a-fA-F]+|:[\w][\w.-]{0,127}(@[\w.+-]+:[0-9a-fA-F]+)?)$")


def find(name: str) -> Image | None:
    """The image of this name, whatever its tag."""
    return IMAGES.get(TAG.sub("", name).removeprefix("docker.io/"))


def command_of(container: Container) -> list[str]:
    """What to run for a container: a built-in program, or a command of the machine. ImageError for any other image."""
    image = find(container.image)
    if image is not None:
        return _built_in(image, container.command, container.args)
    if not container.image.startswith(HOST_PREFIX):
        known = f"{ECHO_IMAGE}, {AGNHOST_IMAGE}, {CLIENT_IMAGE}, or {HOST_PREFIX}<anything> with a command of this machine"
        raise ImageError(f"image {container.image!r} is not here, a lab has no registry: use {known}")
    words = [*container.command, *container.args]
    if not words:
        raise ImageError(f"image {container.image!r} stands for this machine: give a command to run")
    return words


def _built_in(image: Image, command: Sequence[str], args: Sequence[str]) -> list[str]:
    """The program with the words that it gets, unless the command is one of the machine's."""
    if (command and command[0] not in image.commands) or (args and image.replace):
        return [*command, *args]
    if command:
        return [image.program, *command[1:], *args]
    return [image.program, *(args or image.default)]
