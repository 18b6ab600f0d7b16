"""What a controller is: whom a change concerns, and what to do about one of them. All of it pure.

A controller looks at objects through a view and answers with actions. These are carried out at once, before anybody decides again, so a
decision always sees what the one before it did: there is nothing to expect, and nothing to remember. Deciding twice does nothing the
second time.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

from podplane.controllers.load_balancers import LoadBalancers
from podplane.controllers.node_blocks import NodeBlocks
from podplane.controllers.objects import Key, Object, key_of
from podplane.kubeapi.messages import MERGE_PATCH


class Objects(Protocol):
    """The objects of an API. They are shared: nobody changes them. `resource` is the plural with the group, as in `replicasets.apps`."""

    def get(self, resource: str, key: Key) -> Object | None:
        """One object."""

    def all(self, resource: str, namespace: str = "") -> list[Object]:
        """All objects of a resource, or of one namespace, by name."""

    def load_balancers(self) -> LoadBalancers:
        """Load balancers and their pools, and who has which address."""


class Cluster(Objects, Protocol):
    """Those of a cluster whose control plane is somebody else's."""

    @property
    def now(self) -> datetime.datetime:
        """The time."""

    def node_blocks(self) -> NodeBlocks:
        """Which Node has which block."""


class Wording(msgspec.Struct, frozen=True):
    """What is said of a pod by an event about its owner: that it was created, or was not, with the `{pod}`'s name and the `{error}`
    (controller_utils.go)."""

    created: str = "Created pod: {pod}"
    failed: str = "Error creating: {error}"


class Create(msgspec.Struct, frozen=True):
    """Create an object; if one of its name is there already, nothing happens. Of a pod, its owner tells in the words of `wording`."""

    resource: str
    namespace: str
    object: Object
    wording: Wording = Wording()


class Patch(msgspec.Struct, frozen=True):
    """Merge into an object (RFC 7386), or into its `subresource`; only if it is still the one with this uid. A strategic merge leaves
    what others have in lists (conditions)."""

    resource: str
    target: Object
    body: Object
    subresource: str = ""
    form: str = MERGE_PATCH


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
V = TypeVar("V", bound=Objects, contravariant=True)


@dataclass(frozen=True)
class ControllerOf(Generic[V]):
    """One controller: what it watches, and what it decides about a key. A key of which nothing is there any more is decided about too.

    `watches` says by resource whom a change concerns: called with the object before and with the object after it. Of a pod it is not asked
    for the status: after a change of nothing else (`objects.is_related_alike`) it is called with the new version only. `matters` is, by
    resource, what of an object it looks at: a write that leaves that as it was concerns nobody. `rest` is a time in seconds: changes within
    it after a decision about a key are decided about together, when it is over.
    """

    name: str
    watches: Mapping[str, Callable[[V, Object], Iterable[Key]]]
    decide: Callable[[V, Key], Iterable[Action]] = field(compare=False)
    matters: Mapping[str, Callable[[Object], object]] = field(default_factory=dict)
    rest: float = 0.0


def itself(_: object, object_: Object) -> Iterable[Key]:
    """A change concerns the object that changed."""
    return (key_of(object_),)
