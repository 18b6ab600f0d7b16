"""What is read of the API, all at once, each with what is not known without it. An API that is slow is waited for once, not for each."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from podplane.cli.cluster.facts import ClusterNode, NodePage, Object
from podplane.cli.cluster.parsed import COMPONENT
from podplane.cli.names import some
from podplane.cli.waiting import Waiting
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.kubeapi.requests import RESOURCES
from podplane.model.config import VIEWER

SYSTEM, EVENTS_IN = "kube-system", "default"
AGENTS, NETWORK, CONFIG, KUBEADM = "podplane-agent", "podplane-network", "podplane-agent", "kubeadm-config"
UNINSTALL = "podplane-uninstall"
CONTROLLERS, DNS = "podplane-controllers", "kube-dns"
NODES, PATIENT_TIMES = "nodes", 3
PAGE = "500"
"""Objects in one answer of the API, as kubectl asks for."""
TOKEN_SECONDS = 600
NODE_PAGES = msgspec.json.Decoder(NodePage)
"""Made before there are threads (`kubeapi.errors`)."""
Client = Any


class Read(NamedTuple):
    """A question: `verb` and `resource` are the right that it needs, in a namespace or not, `without` what is not known when it fails."""

    verb: str
    resource: str
    namespace: str
    ask: Callable[[Client], Any]
    without: str
    is_optional: bool = True
    """May it be missing (404)? None then."""

    @property
    def right(self) -> str:
        """What it needs, in words."""
        return f"{self.verb} {self.resource}" + (f" in {self.namespace}" if self.namespace else "")


class Done(NamedTuple):
    """What came of a question: a value or an error, after so many seconds, and the API's clock then ("": it did not say)."""

    value: Any
    took: float
    date: str = ""


def all_nodes(client: Client) -> list[ClusterNode]:
    """In pages."""
    found, continuation = list[ClusterNode](), ""
    while True:
        page = NODE_PAGES.decode(client.raw("nodes", limit=PAGE, **{"continue": continuation}))
        found += page.items
        if not (continuation := page.metadata.continuation):
            return found


def _pods(client: Client) -> list[Object]:
    return paged(client, "pods", SYSTEM, labelSelector="app.kubernetes.io/name=podplane,app.kubernetes.io/component=agent")


def paged(client: Client, resource: str, namespace: str = "", **query: str) -> list[Object]:
    """The objects of a resource, of one namespace or of all, read in pages."""
    return list(page_by_page(client, resource, namespace, **query))


def page_by_page(client: Client, resource: str, namespace: str = "", limit: str = PAGE, **query: str) -> Iterator[Object]:
    """The same, of which one page is in memory at a time."""
    continuation = ""
    while True:
        page = msgspec.json.decode(client.raw(resource, namespace, limit=limit, **query, **{"continue": continuation}))
        yield from page["items"]
        if not (continuation := page["metadata"].get("continue") or ""):
            return


def _get(resource: str, name: str) -> Callable[[Client], Object]:
    return lambda client: client.get(resource, SYSTEM, name)


def _events(client: Client) -> list[Object]:
    """Those of agents, one page: there may be any number of them, and as many again of kubelets."""
    selector = f"type=Warning,involvedObject.kind=Node,source={COMPONENT}"
    return client.objects("events", EVENTS_IN, fieldSelector=selector, limit=PAGE)  # type: ignore[no-any-return]


def _slices(client: Client) -> list[Object]:
    return paged(client, "endpointslices.discovery.k8s.io", SYSTEM, labelSelector=f"kubernetes.io/service-name={DNS}")


READS: Mapping[str, Read] = {
    "nodes": Read("list", "nodes", "", all_nodes, "", is_optional=False),
    "version": Read("get", "/version", "", lambda client: client.version(), "the version of the API server"),
    "daemon_set": Read("get", "daemonsets.apps", SYSTEM, _get("daemonsets.apps", AGENTS), "whether a rollout is under way"),
    "removal": Read("get", "daemonsets.apps", SYSTEM, _get("daemonsets.apps", UNINSTALL), "whether podplane is being removed"),
    "pods": Read("list", "pods", SYSTEM, _pods, "which nodes have an agent, and how it is"),
    "network": Read("get", "configmaps", SYSTEM, _get("configmaps", NETWORK), "which backend the cluster wants"),
    "config": Read("get", "configmaps", SYSTEM, _get("configmaps", CONFIG), "which networks agents are told of"),
    "kubeadm": Read("get", "configmaps", SYSTEM, _get("configmaps", KUBEADM), "which networks kubeadm has set"),
    "ranges": Read(
        "list",
        "servicecidrs.networking.k8s.io",
        "",
        lambda client: client.objects("servicecidrs.networking.k8s.io"),
        "the networks of Services",
    ),
    "dns": Read("get", "services", SYSTEM, _get("services", DNS), "whether the cluster has a name server"),
    "slices": Read("list", "endpointslices.discovery.k8s.io", SYSTEM, _slices, "whether a name server is ready"),
    "deployment": Read(
        "get", "deployments.apps", SYSTEM, _get("deployments.apps", CONTROLLERS), "whether the controllers are there"
    ),
    "controllers": Read(
        "get",
        "leases.coordination.k8s.io",
        SYSTEM,
        _get("leases.coordination.k8s.io", CONTROLLERS),
        "who leads the controllers",
    ),
    "events": Read("list", "events", EVENTS_IN, _events, "what agents warned of"),
    "viewer": Read(
        "create",
        f"serviceaccounts/token of {VIEWER}",
        SYSTEM,
        lambda client: client.viewer_token(TOKEN_SECONDS),
        "what agents say of themselves",
    ),
}
assert {read.resource for read in READS.values() if "/" not in read.resource} <= RESOURCES.keys()


def read_all(client: Client, seconds: float) -> dict[str, Done]:
    """What came of each; of what did not come in time an ApiError that says so. Without Nodes there is nothing to tell: they have
    PATIENT_TIMES as long."""
    done: queue.SimpleQueue[tuple[str, Done]] = queue.SimpleQueue()
    began, waiting = time.monotonic(), Waiting()
    for key in READS:
        threading.Thread(
            target=lambda key: done.put((key, _read(client, READS[key], seconds))), args=(key,), daemon=True
        ).start()
    late = ApiError(504, "Timeout", f"no answer within {seconds:.0f} s")
    found: dict[str, Done] = {}
    while len(found) < len(READS):
        left = began + seconds * (1 if NODES in found else PATIENT_TIMES) - time.monotonic()
        if left <= 0:
            break
        with contextlib.suppress(queue.Empty):
            key, one = done.get(timeout=min(left, waiting.silent_for + 0.001))
            found[key] = one
        waiting.look(lambda: f"the API: {some([key for key in READS if key not in found])}")
    return {key: found.get(key, Done(late, seconds)) for key in READS}


def _read(client: Client, read: Read, seconds: float) -> Done:
    began, date = time.monotonic(), ""
    try:
        with client.another(seconds) as own:
            value, date = read.ask(own), own.date
    except NotFound as error:
        value = None if read.is_optional else error
    except ApiError as error:
        value = error
    except (KeyError, TypeError, msgspec.MsgspecError) as error:
        value = ApiError(502, "BadGateway", f"the answer is not the API's: {error}")
    return Done(value, time.monotonic() - began, date)
