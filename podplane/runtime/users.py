"""Who the processes of a pod are: `runAsUser` and what belongs to it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from podplane.kernel.ids import Ids
from podplane.model.pod import Container, Pod
from podplane.runtime.environment import ConfigError

ROOT_HOME = "/root"
STRICT = "Strict"
"""The `supplementalGroupsPolicy` by which a process has no groups that /etc/group gives its user."""


ONE_USER = {"TAR_OPTIONS": "--no-same-owner"}
"""Where nobody else is there to own a file, GNU tar need not try, and does not fail: so `kubectl cp` works."""


class User(NamedTuple):
    """A user, its group and its further groups in a pod, and its home."""

    user: int = 0
    group: int = 0
    groups: tuple[int, ...] = ()
    home: str = ROOT_HOME


class Accounts(NamedTuple):
    """The texts of passwd(5) and group(5) where the containers see them."""

    passwd: str = ""
    group: str = ""


def environment(users: Ids) -> dict[str, str]:
    """What programs are told of users in every container, unless it says something else."""
    return ONE_USER if users.size == 1 else {}


def of(pod: Pod, container: Container, users: Ids, accounts: Accounts) -> User:
    """Who a container's processes are. ConfigError, in a kubelet's words, when they must not be that, or the pod has no such user.

    In a lab whose pods have one user each it is what all containers of the pod ask for, or else 0 (`only_one`).
    """
    asked = asked_user(pod, container)
    _check_non_root(pod, container, asked)
    if users.size == 1:
        user, group = only_one(pod)
        if container in pod.spec.ephemeral_containers and _asked(pod, container) != (user, group):
            raise ConfigError(f"user {asked}: pods of this lab have one user, and this one has {user}")
        return User(user, group, (), ROOT_HOME if user == 0 else _home(accounts, user))
    own = pod.spec.security_context
    further = [*own.supplemental_groups, *(() if own.fs_group is None else (own.fs_group,))]
    name, primary, home = _account(accounts, asked)
    if own.supplemental_groups_policy != STRICT and asked:
        further += _groups_of(accounts, name)
    asked_group = container.security_context.run_as_group
    asked_group = own.run_as_group if asked_group is None else asked_group
    found = User(asked, primary if asked_group is None else asked_group, tuple(sorted({*further})), home)
    for number in (found.user, found.group, *found.groups):
        if number not in users:
            raise ConfigError(f"user or group {number}: a pod of a lab has those from 0 to {users.size - 1}")
    return found


def only_one(pod: Pod) -> tuple[int, int]:
    """The user and the group of a pod that can have one only: those that all of its containers ask for, or else 0."""
    if pod.spec.host_network:
        return 0, 0
    wanted = {_asked(pod, container) for container in pod.spec.all_containers if container not in pod.spec.ephemeral_containers}
    return wanted.pop() if len(wanted) == 1 else (0, 0)


def not_applied(pod: Pod, users: Ids) -> Iterator[str]:
    """What a lab whose pods have one user each can't give it, a sentence each."""
    if users.size > 1:
        return
    own, (user, group) = pod.spec.security_context, only_one(pod)
    why = "pods of this lab have one user and one group each (docs/security.md says how they get more)"
    for container in pod.spec.all_containers:
        asked = _asked(pod, container)
        if asked != (user, group):
            yield f"container {container.name}: user {asked[0]} and group {asked[1]} are not applied: {why}"
    for name, groups in (
        ("fsGroup", () if own.fs_group is None else (own.fs_group,)),
        ("supplementalGroups", own.supplemental_groups),
    ):
        if set(groups) - {group}:
            yield f"the pod: {name} {', '.join(map(str, groups))} not applied: {why}"


def _asked(pod: Pod, container: Container) -> tuple[int, int]:
    group = container.security_context.run_as_group
    return asked_user(pod, container), (pod.spec.security_context.run_as_group if group is None else group) or 0


def asked_user(pod: Pod, container: Container) -> int:
    """The user that a container asks for, 0 for none."""
    own = container.security_context.run_as_user
    return (pod.spec.security_context.run_as_user if own is None else own) or 0


def asks(pod: Pod) -> bool:
    """Does anything of it ask for another user than 0?"""
    return any(asked_user(pod, container) for container in pod.spec.all_containers)


def common_user(pod: Pod) -> int | None:
    """The user of all its containers; None when they differ, or one says nothing (kubernetes, pkg/volume/util, FsUserFrom)."""
    found = {
        pod.spec.security_context.run_as_user if own is None else own
        for own in (container.security_context.run_as_user for container in pod.spec.all_containers)
    }
    return found.pop() if len(found) == 1 else None


def _check_non_root(pod: Pod, container: Container, user: int) -> None:
    """kubernetes, pkg/kubelet/kuberuntime/security_context.go, verifyRunAsNonRoot; images of a lab have no user."""
    own, general = container.security_context, pod.spec.security_context
    must = general.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root
    if not must or user:
        return
    meta = pod.metadata
    where = f'(pod: "{meta.name}_{meta.namespace}({meta.uid})", container: {container.name})'
    if own.run_as_user is None and general.run_as_user is None:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    raise ConfigError(f"container's runAsUser breaks non-root policy {where}")


def _account(accounts: Accounts, user: int) -> tuple[str, int, str]:
    """The name, the group and the home of a user; "", 0 and / for one without a name, as container engines have it."""
    for fields in map(_fields, accounts.passwd.splitlines()):
        if len(fields) >= 6 and fields[2] == str(user) and fields[3].isdecimal():
            return fields[0], int(fields[3]), fields[5] or "/"
    return ("root", 0, ROOT_HOME) if user == 0 else ("", 0, "/")


def _home(accounts: Accounts, user: int) -> str:
    return _account(accounts, user)[2]


def _groups_of(accounts: Accounts, name: str) -> list[int]:
    lines = map(_fields, accounts.group.splitlines())
    named = (fields for fields in lines if len(fields) == 4 and name and name in fields[3].split(","))
    return [int(fields[2]) for fields in named if fields[2].isdecimal()]


def _fields(line: str) -> list[str]:
    return line.split(":")
