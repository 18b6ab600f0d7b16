"""What the lab's controllers see of its store, beyond what all controllers see (`controllers.decision`)."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from podplane.apiserver.controllers.allocated import Allocated
from podplane.apiserver.controllers.contents import Content
from podplane.apiserver.controllers.usage import NodeUsage
from podplane.controllers.decision import Action as Action
from podplane.controllers.decision import Again as Again
from podplane.controllers.decision import Bind as Bind
from podplane.controllers.decision import ControllerOf, Objects
from podplane.controllers.decision import Create as Create
from podplane.controllers.decision import Delete as Delete
from podplane.controllers.decision import Note as Note
from podplane.controllers.decision import Patch as Patch
from podplane.controllers.decision import Wording as Wording
from podplane.controllers.decision import itself as itself
from podplane.controllers.objects import Key, Object, controller_of


class View(Objects, Protocol):
    """The stored objects."""

    @property
    def now(self) -> datetime.datetime:
        """The time (UTC) of this decision."""

    @property
    def awake_since(self) -> datetime.datetime:
        """Since when somebody looks without a break: the start of the control plane, or the end of a suspension of the machine or of a time
        in which nothing could be written."""

    @property
    def node_grace(self) -> float:
        """Seconds for which a node may be silent."""

    def controlled(self, resource: str, owner: Object) -> list[Object]:
        """The objects whose controller this one is (`ownerReferences` with `controller: true`), by name."""

    def controlled_by_name(self, resource: str, kind: str, key: Key) -> list[Object]:
        """The objects of a namespace whose controller has this kind and name, whichever its uid, by name."""

    def may_select(self, resource: str, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """The Services, ReplicaSets or Jobs of a namespace whose selectors may choose a pod with these labels, by name.

        All that do are among them; the others are those that have only a part of their selector in common with the labels.
        """

    def orphans(self, resource: str, namespace: str) -> list[Object]:
        """The pods, ReplicaSets or ControllerRevisions of a namespace that have no controller, by name."""

    def unowned(self, namespace: str, selector: Object) -> list[Object]:
        """The pods of a namespace that have no controller and that a selector chooses, by name; the others cost nothing."""

    def content(self, namespace: str) -> Content:
        """How much is in a namespace, and what holds it."""

    def allocated(self) -> Allocated:
        """The addresses that Services have, as IPAddress objects say it."""

    def labelled(self, namespace: str, selector: Mapping[str, str]) -> list[Object]:
        """The pods of a namespace that have all these labels, by name; none for an empty selector."""

    def on_node(self, node: str) -> list[Object]:
        """The pods that were given to this node, whatever became of them."""

    def usage(self, node: str) -> NodeUsage:
        """What the pods of a node use."""

    def shunning(self) -> Iterable[tuple[Object, Object]]:
        """(pod, term) for each required anti-affinity of a pod that has a node."""

    def hinted(self) -> Iterable[Key]:
        """The Services that ask for hints by zone (`topology-mode: Auto`)."""

    def unschedulable(self) -> Iterable[Key]:
        """The pods that no node was found for."""


Controller = ControllerOf[View]
Concerns = Callable[[View, Object], Iterable[Key]]
"""Whom a change concerns (see `ControllerOf`)."""


def its_controller(kind: str) -> Concerns:
    """A change concerns the object's controller, if that is of this kind."""

    def concerns(_: View, object_: Object) -> Iterable[Key]:
        owner = controller_of(object_)
        if owner is not None and owner["kind"] == kind:
            yield object_["metadata"]["namespace"], owner["name"]

    return concerns
