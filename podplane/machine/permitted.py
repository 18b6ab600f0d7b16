"""Which of the rights that an agent needs (`machine.rbac`) it does not have: asked for at once, and not found out one after another.

A SelfSubjectRulesReview lists what who asks may do in a namespace; everybody may ask for one (ClusterRole system:basic-user). Where
something beside RBAC decides, the list may be incomplete, and then it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine.rbac import RULES, Rule

REVIEWS = "selfsubjectrulesreviews.authorization.k8s.io"
ANY = "*"
ELSEWHERE = "default"
"""A namespace to ask about for what is allowed in all: no Role of podplane's is there."""
SILENT = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
"""An API that answers so does not tell."""


class Given(msgspec.Struct, frozen=True, rename="camel"):
    """authorization/v1 ResourceRule."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class _Answer(msgspec.Struct, rename="camel"):
    resource_rules: tuple[Given, ...] = ()
    incomplete: bool = False


class Right(NamedTuple):
    """A verb on a resource of an API group, in one namespace or in all (""), of one name or of all ("")."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        what = f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{what}{f' {self.name}' if self.name else ''}{where}"


async def missing(client: Client) -> list[str]:
    """The rights that are missing, in one line; [] for none, or where that can't be told. ApiError when the API does not answer."""
    lacking: list[str] = []
    for namespace in dict.fromkeys(rule.namespace for rule in RULES):
        given = await _given(client, namespace or ELSEWHERE)
        if given is None:
            return []
        lacking += map(str, lacks((rule for rule in RULES if rule.namespace == namespace), given))
    if not lacking:
        return []
    return [f"the API does not permit this agent to {'; to '.join(lacking)}: apply what `podplane agent rbac` prints"]


async def _given(client: Client, namespace: str) -> tuple[Given, ...] | None:
    """What it may do there; None when that is not told."""
    try:
        answer = await client.create(REVIEWS, "", {"spec": {"namespace": namespace}})
        found = msgspec.convert(answer.get("status", {}), _Answer)
    except ApiError as error:
        if error.code in SILENT:
            return None
        raise
    except msgspec.ValidationError:
        return None
    return None if found.incomplete or not found.resource_rules else found.resource_rules


def lacks(rules: Iterable[Rule], given: Iterable[Given]) -> Iterator[Right]:
    """What these rules have, and none of those that are given."""
    had = tuple(given)
    for rule in rules:
        for resource in rule.resources:
            for verb in rule.verbs:
                for name in rule.names or ("",):
                    right = Right(verb, rule.group, resource, rule.namespace, name)
                    if not any(_gives(one, right) for one in had):
                        yield right


def _gives(one: Given, right: Right) -> bool:
    _, _, subresource = right.resource.partition("/")
    resources = {ANY, right.resource, *([f"{ANY}/{subresource}"] if subresource else [])}
    return (
        not {ANY, right.verb}.isdisjoint(one.verbs)
        and not {ANY, right.group}.isdisjoint(one.api_groups)
        and not resources.isdisjoint(one.resources)
        and (not one.resource_names or right.name in one.resource_names)
    )
