"""Volumes: which files a pod's volumes hold, and how they come to a folder all at once.

What a volume holds is pure; writing follows kubelet's atomic writer: files lie in a folder of their own, `..data` is a link to it, and
a new version is put in place by one rename, so that nobody ever reads half of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import msgspec

from podplane.model.pod import (
    ConfigMapVolume,
    DownwardVolume,
    HostPath,
    KeyToPath,
    Pod,
    Projection,
    SecretVolume,
    TokenProjection,
    Volume,
)
from podplane.runtime.environment import (
    CONFIG_MAPS,
    SECRETS,
    ConfigError,
    Facts,
    Source,
    contents,
    field,
    not_found,
    resource_field,
)

DATA, DRAFT = "..data", "..data_tmp"
DEFAULT_MODE = 0o644
GROUP_READS, SHARED_FOLDER = 0o440, 0o2775
"""What a kubelet adds to the modes of files, and the mode of folders, where a group shall read a volume."""
HOST_PATH_TYPES = {
    "Directory": (Path.is_dir, "directory"),
    "DirectoryOrCreate": (Path.is_dir, "directory"),
    "File": (Path.is_file, "file"),
    "FileOrCreate": (Path.is_file, "file, and a lab makes none on the machine"),
    "Socket": (Path.is_socket, "socket file"),
    "CharDevice": (Path.is_char_device, "character device"),
    "BlockDevice": (Path.is_block_device, "block device"),
}
"""What a hostPath of a type must be, and how a kubelet calls that. A container makes folders that are missing for itself, but no files."""


class File(msgspec.Struct, frozen=True):
    """A file of a volume; a token belongs to the user of the pod's containers, if that is one."""

    data: bytes
    mode: int = DEFAULT_MODE
    is_token: bool = False


class Owner(NamedTuple):
    """Whose a volume's files are: the user and the group of the lab, whether it is the group that shall read them (`fsGroup`), and the user
    that tokens belong to."""

    user: int = 0
    group: int = 0
    is_shared: bool = False
    reader: int = 0


Files = dict[str, File]
"""By path below the volume."""
Tokens = Callable[[TokenProjection], str]
"""The token of a projection, which was asked for before."""


def sources_of(volume: Volume) -> Iterator[Source]:
    """The sources that a volume needs."""
    for part in _parts(volume):
        if part.config_map is not None:
            yield CONFIG_MAPS, part.config_map.name
        if part.secret is not None:
            yield SECRETS, part.secret.secret_name or part.secret.name


def tokens_of(volume: Volume) -> Iterator[TokenProjection]:
    """The tokens that a volume needs."""
    for part in _parts(volume):
        if part.service_account_token is not None:
            yield part.service_account_token


def _parts(volume: Volume) -> Sequence[Projection]:
    if volume.projected is not None:
        return volume.projected.sources
    return (Projection(config_map=volume.config_map, secret=volume.secret, downward_api=volume.downward_api),)


def is_known(volume: Volume) -> bool:
    """Is it of a kind that there is in a lab?"""
    kinds = (volume.empty_dir, volume.host_path, volume.config_map, volume.secret, volume.downward_api, volume.projected)
    return any(kind is not None for kind in kinds)


def check_host_path(volume: HostPath, place: str = "") -> None:
    """ConfigError unless this machine has there, or in another `place`, what the volume's type wants."""
    path = Path(place or volume.path)
    if volume.type not in HOST_PATH_TYPES:
        return
    is_right, kind = HOST_PATH_TYPES[volume.type]
    try:
        is_taken = is_right(path) or (volume.type == "DirectoryOrCreate" and not path.exists())
    except OSError as error:
        raise ConfigError(f"hostPath type check failed: {volume.path}: {error.strerror}") from None
    if not is_taken:
        raise ConfigError(f"hostPath type check failed: {volume.path} is not a {kind}")


def files_of(pod: Pod, volume: Volume, facts: Facts, tokens: Tokens) -> Files:
    """What a volume holds; an emptyDir holds nothing. ConfigError when it can't be had."""
    default = volume.projected.default_mode if volume.projected is not None else None
    found: Files = {}
    for part in _parts(volume):
        if part == Projection():
            raise ConfigError(f"volume {volume.name!r} has a source of a kind that a lab doesn't have")
        mode = DEFAULT_MODE if default is None else default
        if part.config_map is not None:
            found |= _keyed(CONFIG_MAPS, part.config_map.name, part.config_map, mode, facts)
        if part.secret is not None:
            found |= _keyed(SECRETS, part.secret.secret_name or part.secret.name, part.secret, mode, facts)
        if part.downward_api is not None:
            found |= _downward(pod, part.downward_api, mode, facts)
        if part.service_account_token is not None:
            token = part.service_account_token
            found[_inside(token.path)] = File(tokens(token).encode(), mode, is_token=True)
    return found


def _keyed(resource: str, name: str, volume: ConfigMapVolume | SecretVolume, mode: int, facts: Facts) -> Files:
    mode = mode if volume.default_mode is None else volume.default_mode
    source = facts.sources.get((resource, name))
    if source is None:
        if volume.optional:
            return {}
        raise ConfigError(not_found(resource, name))
    there = contents(source, resource)
    items: Sequence[KeyToPath] = volume.items or [KeyToPath(key, key) for key in sorted(there)]
    found: Files = {}
    for item in items:
        if item.key in there:
            found[_inside(item.path)] = File(there[item.key], mode if item.mode is None else item.mode)
        elif not volume.optional:
            raise ConfigError(f"references non-existent {resource.removesuffix('s')} key: {item.key}")
    return found


def _downward(pod: Pod, volume: DownwardVolume, mode: int, facts: Facts) -> Files:
    mode = mode if volume.default_mode is None else volume.default_mode
    found: Files = {}
    for item in volume.items:
        text = ""
        if item.field_ref is not None:
            text = field(pod, item.field_ref.field_path, facts)
        elif item.resource_field_ref is not None:
            text = resource_field(pod, pod.spec.containers[0], item.resource_field_ref, facts)
        found[_inside(item.path)] = File(text.encode(), mode if item.mode is None else item.mode)
    return found


def _inside(path: str) -> str:
    """The path, if it stays in the volume and out of the writer's way. ConfigError otherwise."""
    plain = os.path.normpath(path)
    if path.startswith("/") or ".." in path.split("/") or plain.startswith("..") or plain == ".":
        raise ConfigError(f"the path {path!r} of a volume's file must be relative and may not contain or begin with '..'")
    return plain


def write(folder: Path, files: Mapping[str, File], owner: Owner = Owner()) -> None:  # noqa: B008  # it is immutable
    """Make the folder hold exactly these files, all at once."""
    place = os.fspath(folder)
    make_folder(place, owner)
    data = f"{place}/{DATA}"
    old = os.readlink(data) if os.path.islink(data) else ""
    new = f"..{int(old.removeprefix('..') or 0) + 1}"
    shutil.rmtree(f"{place}/{new}", ignore_errors=True)  # of an attempt that failed
    make_folder(f"{place}/{new}", owner)
    for path, file in files.items():
        for above in reversed(PurePath(path).parents[:-1]) if "/" in path else ():
            make_folder(f"{place}/{new}/{above}", owner)
        mode, of_file = _access(file, owner)
        write_file(f"{place}/{new}/{path}", file.data, mode, of_file)
    os.symlink(new, f"{place}/{DRAFT}")
    os.rename(f"{place}/{DRAFT}", data)
    tops = {path.split("/")[0] for path in files}
    with os.scandir(place) as entries:
        links = {entry.name for entry in entries if entry.is_symlink()}
    for name in tops - links:
        os.symlink(f"{DATA}/{name}", f"{place}/{name}")
    for name in links - tops - {DATA}:
        os.unlink(f"{place}/{name}")
    if old:
        shutil.rmtree(f"{place}/{old}")


def _access(file: File, owner: Owner) -> tuple[int, Owner]:
    """The mode and the owner of a file (kubernetes, pkg/volume/volume_linux.go and pkg/volume/projected)."""
    mode = file.mode
    if file.is_token and (owner.is_shared or owner.reader != owner.user):
        mode, owner = 0o600, owner._replace(user=owner.reader)
    return mode | (GROUP_READS if owner.is_shared else 0), owner


def make_folder(path: str, owner: Owner = Owner()) -> None:  # noqa: B008
    """Have a folder of a pod there, and those above it."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)
    if owner.user or owner.group:
        os.chown(path, owner.user, owner.group)
    if owner.is_shared:
        os.chmod(path, SHARED_FOLDER)


def write_file(path: str, data: bytes, mode: int | None = None, owner: Owner = Owner()) -> None:  # noqa: B008
    """Write a file of a pod: there are many at the start of a lab, and this takes half of the system calls of `Path.write_bytes`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
        if owner.user or owner.group:
            os.fchown(fd, owner.user, owner.group)
        if mode is not None:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)
