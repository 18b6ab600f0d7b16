"""The files of a pod on its node: its resolv.conf, hosts and hostname, its volumes, and where each container sees them."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from podplane.kernel import ids
from podplane.kernel.rootfs import Bind
from podplane.kernel.volumes import Tmpfs
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.model.pod import Container, Pod, TokenProjection
from podplane.runtime import environment, limits, removal, volumes
from podplane.runtime.environment import ConfigError, Facts, Source, expand
from podplane.runtime.host_paths import HostPaths
from podplane.runtime.users import Accounts, common_user
from podplane.runtime.volumes import Owner

PATH_MAX = 4096
"""The kernel takes no longer path (limits.h)."""
MOST_FILES, MOST_BYTES = 20_000, 64 << 20
"""Of a pod, in its volumes that the lab writes: it may name a large ConfigMap as often as it wants."""
FILES_AT_ONCE, BYTES_AT_ONCE = 64, 1 << 20
"""What is more is written beside the event loop."""
EMPTY_DIRS = "empty"
"""The folder of its emptyDirs, in the mount namespace of the pod only."""
RENEW_AFTER = 0.8
"""A token is renewed when so much of its life is over (kubelet, token_manager.go)."""


def machine_accounts() -> Accounts:
    """The users and groups of the machine, which containers see."""
    return Accounts(
        *(Path(path).read_text(errors="replace") if os.path.exists(path) else "" for path in ("/etc/passwd", "/etc/group"))
    )


def machine_hosts() -> str:
    """The machine's /etc/hosts, which is that of each node; "" without one."""
    try:
        return Path("/etc/hosts").read_text(errors="replace")
    except OSError:
        return ""


class PodFolder(msgspec.Struct):
    """The folder of one pod, on the lab's own tmpfs: no container can write there. Its emptyDirs lie on file systems of their own."""

    path: Path
    client: Client
    host: HostPaths = HostPaths()  # it is immutable
    _tokens: dict[TokenProjection, tuple[str, float]] = msgspec.field(default_factory=dict)
    _etc: tuple[str, ...] = ()
    _written: dict[str, volumes.Files] = msgspec.field(default_factory=dict)

    @staticmethod
    async def sources(client: Client, pod: Pod) -> dict[Source, Mapping[str, Any] | None]:
        """The ConfigMaps and Secrets that a pod speaks of; None for one that isn't there."""
        wanted = {source for volume in pod.spec.volumes for source in volumes.sources_of(volume)}
        for container in pod.spec.all_containers:
            wanted |= set(environment.sources_of(container))
        found: dict[Source, Mapping[str, Any] | None] = {}
        for resource, name in sorted(wanted):
            try:
                found[resource, name] = await client.get(resource, pod.metadata.namespace, name)
            except NotFound:
                found[resource, name] = None
        return found

    async def write(self, pod: Pod, facts: Facts, etc: Mapping[str, str]) -> None:
        """Write all files, `etc` for /etc by their names; what is as it was isn't touched. ConfigError when a volume can't be made."""
        place, owner = os.fspath(self.path), self._owner(pod)
        for path in (place, f"{place}/volumes"):
            volumes.make_folder(path)
        for name, text in etc.items():
            volumes.write_file(f"{place}/{name}", text.encode(), owner=Owner(owner.user, owner.user))
        self._etc = tuple(etc)
        count = size = 0
        for volume in pod.spec.volumes:
            if not volumes.is_known(volume):
                known = "emptyDir, hostPath, configMap, secret, downwardAPI or projected"
                raise ConfigError(f"volume {volume.name!r} is of a kind that a lab doesn't have: use {known}")
            for token in volumes.tokens_of(volume):
                await self._renew(pod, token)
            if volume.host_path is not None:
                self.host.check(volume.host_path)
                continue
            if volume.empty_dir is not None:
                if volume.empty_dir.medium.startswith(limits.HUGE):
                    raise ConfigError(
                        f"volume {volume.name!r}: a lab has no medium {volume.empty_dir.medium}: use Memory, or none"
                    )
                continue
            folder = self.path / "volumes" / volume.name
            files = volumes.files_of(pod, volume, facts, lambda token: self._tokens[token][0])
            own = sum(len(file.data) for file in files.values())
            count, size = count + len(files), size + own
            if count > MOST_FILES or size > MOST_BYTES:
                raise ConfigError(
                    f"volume {volume.name!r}: a pod may have {MOST_FILES:,} files of ConfigMaps, Secrets and such, "
                    f"and {limits.mebibytes(MOST_BYTES)} in them"
                )
            if self._written.get(volume.name) != files:
                if len(files) > FILES_AT_ONCE or own > BYTES_AT_ONCE:
                    await asyncio.to_thread(volumes.write, folder, files, owner)
                else:
                    volumes.write(folder, files, owner)
                self._written[volume.name] = files

    @staticmethod
    def _owner(pod: Pod) -> Owner:
        """Whose the files of its volumes are."""
        users, context = ids.of_pods(), pod.spec.security_context
        if users.size == 1:
            return Owner()
        group = context.fs_group
        if group is not None and group not in users:
            raise ConfigError(f"fsGroup {group}: a pod of a lab has groups from 0 to {users.size - 1}")
        return Owner(users.first, users.first + (group or 0), group is not None, users.first + (common_user(pod) or 0))

    def tmpfs(self, pod: Pod) -> list[Tmpfs]:
        """The file systems of its emptyDirs: one for all that say no size, one for each other."""
        own = limits.sized(pod)
        shared = [volume.name for volume in limits.empty_dirs(pod) if volume.name not in own]
        place, group = f"{self.path}/{EMPTY_DIRS}", pod.spec.security_context.fs_group
        group = None if ids.of_pods().size == 1 else group
        return [
            *([Tmpfs(place, limits.USUAL, shared, group)] if shared else []),
            *(Tmpfs(f"{place}/{name}", size, group=group) for name, size in own.items()),
        ]

    async def _renew(self, pod: Pod, token: TokenProjection) -> None:
        """Have a token that is good for a while. ConfigError when there is none."""
        if token in self._tokens and time.time() < self._tokens[token][1]:
            return
        metadata = pod.metadata
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata.name, "uid": metadata.uid}
        spec: dict[str, Any] = {"expirationSeconds": token.expiration_seconds, "boundObjectRef": bound}
        spec["audiences"] = [token.audience] if token.audience else []
        account = pod.spec.service_account_name or "default"
        try:
            made = await self.client.post("serviceaccounts", metadata.namespace, account, "token", {"spec": spec})
        except ApiError as error:
            raise ConfigError(f"failed to fetch token: {error}") from None
        self._tokens[token] = (made["status"]["token"], time.time() + RENEW_AFTER * token.expiration_seconds)

    def binds(self, pod: Pod, container: Container, variables: Mapping[str, str]) -> list[Bind]:
        """What a container sees of it, and where."""
        found = [Bind(f"{self.path}/{name}", f"/etc/{name}", copied=True) for name in self._etc]
        kinds = {volume.name: volume for volume in pod.spec.volumes}
        for mount in sorted(container.volume_mounts, key=lambda mount: mount.mount_path):
            own = kinds[mount.name].host_path
            is_empty = kinds[mount.name].empty_dir is not None
            below = expand(mount.sub_path_expr, variables) if mount.sub_path_expr else mount.sub_path
            if ".." in below.split("/") or below.startswith("/"):
                raise ConfigError(f"subPath {below!r} must be relative and may not contain '..'")
            if len(os.fsencode(below)) >= PATH_MAX:
                raise ConfigError(f"subPath {below[:40]!r}…: {os.strerror(errno.ENAMETOOLONG)}")
            read_only = mount.read_only or not (is_empty or own is not None)
            if own is not None:
                found.append(self.host.bind(own.path, below, mount.mount_path, read_only=read_only))
            else:
                source = self.path / (EMPTY_DIRS if is_empty else "volumes") / mount.name
                found.append(Bind(str(source), mount.mount_path, read_only, below=below, makes_below=is_empty))
        return found

    async def remove(self) -> None:
        """Forget it all. OSError when something of it stays."""
        await removal.remove(os.fspath(self.path))
