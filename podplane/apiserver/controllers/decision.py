"""What a controller is: whom a change concerns, and what to do about one of them. All of it pure.

A controller looks at the stored objects through a `View` and answers with actions. These are carried out at once, before anybody decides
again, so a decision always sees what the one before it did: there is nothing to expect, and nothing to remember. Deciding twice does
nothing the second time.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from podplane.apiserver.controllers.allocated import Allocated
from podplane.apiserver.controllers.contents import Content
from podplane.apiserver.controllers.load_balancers import LoadBalancers
from podplane.apiserver.controllers.objects import Key, Object, controller_of, key_of
from podplane.apiserver.controllers.usage import NodeUsage


class View(Protocol):
    """The stored objects. They are shared: nobody changes them. `resource` is the plural with the group, as in `replicasets.apps`."""

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

    def get(self, resource: str, key: Key) -> Object | None:
        """One object."""

    def all(self, resource: str, namespace: str = "") -> list[Object]:
        """All objects of a resource, or of one namespace, by name."""

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

    def load_balancers(self) -> LoadBalancers:
        """Load balancers and their pools, and who has which address."""

    def shunning(self) -> Iterable[tuple[Object, Object]]:
        """(pod, term) for each required anti-affinity of a pod that has a node."""

    def hinted(self) -> Iterable[Key]:
        """The Services that ask for hints by zone (`topology-mode: Auto`)."""

    def unschedulable(self) -> Iterable[Key]:
        """The pods that no node was found for."""


class Create(msgspec.Struct, frozen=True):
    """Create an object; if one of its name is there already, nothing happens."""

    resource: str
    namespace: str
    object: Object


class Patch(msgspec.Struct, frozen=True):
    """Merge into an object (RFC 7386), or into its `subresource`; only if it is still the one with this uid."""

    resource: str
    target: Object
    body: Object
    subresource: str = ""


class Delete(msgspec.Struct, frozen=True):
    """Delete an object, if it is still the one with this uid; `grace` in seconds instead of its own, `policy` of its dependents."""

    resource: str
    target: Object
    grace: int | None = None
    policy: str = ""


class Bind(msgspec.Struct, frozen=True):
    """Give a pod its node."""

    pod: Object
    node: str


class Note(msgspec.Struct, frozen=True):
    """Tell the user something about an object: an Event. Repeated ones are counted, not repeated."""

    target: Object
    reason: str
    message: str
    type: str = "Normal"


class Again(msgspec.Struct, frozen=True):
    """Decide about this key again in so many seconds, whatever happens until then."""

    seconds: float


Action = Create | Patch | Delete | Bind | Note | Again
Concerns = Callable[[View, Object], Iterable[Key]]
"""Whom a change concerns: called with the object before and with the object after it. Of a pod it is not asked for the status: after a
change of nothing else (`objects.is_related_alike`) it is called with the new version only."""


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller: what it watches, and what it decides about a key. A key of which nothing is there any more is decided about too.

    `matters` is, by resource, what of an object it looks at: a write that leaves that as it was concerns nobody.
    """

    name: str
    watches: Mapping[str, Concerns]
    decide: Callable[[View, Key], Iterable[Action]] = field(compare=False)
    matters: Mapping[str, Callable[[Object], object]] = field(default_factory=dict)


def itself(_: View, object_: Object) -> Iterable[Key]:
    """A change concerns the object that changed."""
    return (key_of(object_),)


def its_controller(kind: str) -> Concerns:
    """A change concerns the object's controller, if that is of this kind."""

    def concerns(_: View, object_: Object) -> Iterable[Key]:
        owner = controller_of(object_)
        if owner is not None and owner["kind"] == kind:
            yield object_["metadata"]["namespace"], owner["name"]

    return concerns
