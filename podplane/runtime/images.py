"""Images without a registry: a literal table of built-in programs, and this machine's own commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from podplane.model.pod import Container
from podplane.runtime.image_files import AGNHOST_FILE, CERTIFICATE_FILE, KEY_FILE, PAUSE_FILE
from podplane.runtime.program_names import AGNHOST_IMAGE, CLIENT_IMAGE, ECHO_IMAGE, HOST_PREFIX, NAMES, PROBE


class ImageError(Exception):
    """No program for this image; one line that says what would work."""


class Image(msgspec.Struct, frozen=True):
    """A built-in program as an image: what it is called in there, the words that it gets when the container says none, other names of it.

    Where the words `replace` it, arguments are a command of the machine, as with images that have a shell and no entry point. Its
    `files` are (where a container sees it, its name in `image_files`).
    """

    program: str
    entry: str
    default: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    replace: bool = False
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute: its words, and the built-in program that it is, or ""."""

    words: tuple[str, ...]
    program: str = ""


ECHO, PROBER = Image(ECHO_IMAGE, ECHO_IMAGE), Image(PROBE, PROBE)
CLIENT = Image(CLIENT_IMAGE, CLIENT_IMAGE, replace=True)
AGNHOST = Image(
    AGNHOST_IMAGE,
    "/agnhost",
    ("pause",),
    ("/agnhost", "/agnhost-2", "agnhost"),
    files=(
        ("/agnhost", AGNHOST_FILE),
        ("/agnhost-2", AGNHOST_FILE),
        ("/localhost.crt", CERTIFICATE_FILE),
        ("/localhost.key", KEY_FILE),
    ),
)
WEB = msgspec.structs.replace(AGNHOST, default=("netexec", "--http-port=80"))
PAUSE = Image(CLIENT_IMAGE, "/pause", commands=("/pause", "pause"), files=(("/pause", PAUSE_FILE),))
IMAGES = {
    ECHO_IMAGE: ECHO,
    CLIENT_IMAGE: CLIENT,
    AGNHOST_IMAGE: AGNHOST,
    PROBE: PROBER,
    "registry.k8s.io/e2e-test-images/agnhost": AGNHOST,
    "k8s.gcr.io/e2e-test-images/agnhost": AGNHOST,
    "gcr.io/kubernetes-e2e-test-images/agnhost": AGNHOST,
    "registry.k8s.io/e2e-test-images/jessie-dnsutils": CLIENT,
    "registry.k8s.io/e2e-test-images/glibc-dns-testing": CLIENT,
    "registry.k8s.io/e2e-test-images/busybox": CLIENT,
    "registry.k8s.io/build-image/distroless-iptables": CLIENT,
    "registry.k8s.io/e2e-test-images/nginx": WEB,
    "registry.k8s.io/pause": PAUSE,
    "k8s.gcr.io/pause": PAUSE,
}
"""By name without tag and digest; the last ones are published names: of agnhost, of images with dig and
other tools, of a web server on port 80, of pause."""
TAG = re.compile(r"(@[\w.+-]+:[0-9a-fA-F]+|:[\w][\w.-]{0,127}(@[\w.+-]+:[0-9a-fA-F]+)?)$")


def find(name: str) -> Image | None:
    """The image of this name, whatever its tag."""
    return IMAGES.get(TAG.sub("", name).removeprefix("docker.io/"))


def command_of(container: Container) -> Command:
    """What to run for a container: a built-in program, or a command of the machine. ImageError for any other image."""
    image = find(container.image)
    if image is not None:
        return _built_in(image, container.command, container.args)
    if not container.image.startswith(HOST_PREFIX):
        known = f"{ECHO_IMAGE}, {AGNHOST_IMAGE}, {CLIENT_IMAGE}, or {HOST_PREFIX}<anything> with a command of this machine"
        raise ImageError(f"image {container.image!r} is not here, a lab has no registry: use {known}")
    words = (*container.command, *container.args)
    if not words:
        raise ImageError(f"image {container.image!r} stands for this machine: give a command to run")
    return Command(words)


def _built_in(image: Image, command: Sequence[str], args: Sequence[str]) -> Command:
    """The program with the words that it gets, unless the command is one of the machine's."""
    if command:
        return Command((*command, *args), image.program if command[0] in image.commands else "")
    if args and image.replace:
        return Command(tuple(args))
    return Command((image.entry, *(args or image.default)), image.program)


def command_in(image_name: str, words: Sequence[str]) -> Command:
    """What words are that somebody runs in a container of this image (`kubectl exec`): its program by one of its names, any built-in
    program by its own, or a command of the machine."""
    image = find(image_name)
    if image is not None and words[0] in image.commands:
        return Command(tuple(words), image.program)
    return Command(tuple(words), words[0] if words[0] in NAMES else "")


def files_of(image_name: str) -> Mapping[str, str]:
    """What a container of this image sees beside the machine's files: where → the name in `image_files`."""
    image = find(image_name)
    return dict(image.files) if image is not None else {}
