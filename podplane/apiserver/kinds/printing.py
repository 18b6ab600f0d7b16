"""Columns of tables, as kubectl users know them (pkg/printers/internalversion). Pure: an object and the time in, cells out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any

from podplane.apiserver.kinds.pod_summary import summary
from podplane.apiserver.kinds.resource import Column, at

Object = dict[str, Any]
Now = datetime.datetime
NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"
WIDE = 1
MAX_PORTS_SHOWN = 3


def column(name: str, value: Callable[[Object], Any], type_: str = "string", priority: int = 0, format_: str = "") -> Column:
    """A column whose value doesn't hang on the time."""
    return Column(name, lambda object_, _: value(object_), type_, priority, format_)


def path(text: str, default: Any = NONE) -> Callable[[Object], Any]:
    """The value at a path of fields."""
    parts = tuple(text.split("."))

    def value(object_: Object) -> Any:
        found = at(object_, parts)
        return default if found is None or found == "" else found

    return value


def number(name: str, text: str, priority: int = 0) -> Column:
    """A column of numbers, 0 where nothing is said."""
    return column(name, path(text, 0), "integer", priority)


def duration(seconds: float) -> str:
    """A time span in one or two units (apimachinery, util/duration/duration.go, HumanDuration)."""
    whole = int(seconds)
    if whole < 0:
        return "<invalid>" if whole < -1 else "0s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = divmod(days, 365)
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def since(text: str | None, now: Now) -> str:
    """How long ago that was."""
    if not text:
        return UNKNOWN
    return duration((now - datetime.datetime.fromisoformat(text)).total_seconds())


def name_of(object_: Object) -> str:
    """metadata.name."""
    found: str = object_["metadata"]["name"]
    return found


NAME = column("Name", name_of, format_="name")
AGE = Column("Age", lambda object_, now: since(object_["metadata"].get("creationTimestamp"), now))
CREATED = column("Created At", path("metadata.creationTimestamp"), format_="date-time")


def joined(parts: Iterable[Any], otherwise: str = NONE) -> str:
    """Parts with commas."""
    return ",".join(map(str, parts)) or otherwise


def selector_text(selector: Object | None) -> str:
    """A meta/v1 LabelSelector as one text, in the order of its keys (apimachinery, labels/selector.go)."""
    if not selector:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    terms += [(term.get("key", ""), _expression(term)) for term in selector.get("matchExpressions") or ()]
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0])) or NONE


def _expression(term: Object) -> str:
    key, operator, values = term.get("key", ""), term.get("operator"), ",".join(sorted(term.get("values", ())))
    if operator in ("In", "NotIn"):
        return f"{key} {operator.lower()} ({values})"
    return f"!{key}" if operator == "DoesNotExist" else f"{key}"


def labels_text(labels: Object | None) -> str:
    """Labels as one text."""
    return joined(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def _containers(object_: Object) -> list[Object]:
    return at(object_, ("spec", "template", "spec", "containers")) or []


CONTAINERS = column("Containers", lambda o: joined(c.get("name", "") for c in _containers(o)), priority=WIDE)
IMAGES = column("Images", lambda o: joined(c.get("image", "") for c in _containers(o)), priority=WIDE)
SELECTOR = column("Selector", lambda o: selector_text(at(o, ("spec", "selector"))), priority=WIDE)


# Pods.


def _pod_ready(pod: Object) -> str:
    found = summary(pod)
    return f"{found.ready}/{found.containers}"


def _restarts(pod: Object, now: Now) -> str:
    found = summary(pod)
    ago = f" ({since(found.restarted_at, now)} ago)" if found.restarts and found.restarted_at else ""
    return f"{found.restarts}{ago}"


def _gates(pod: Object) -> str:
    gates = pod["spec"].get("readinessGates", ())
    true = {c.get("type") for c in pod.get("status", {}).get("conditions", ()) if c.get("status") == "True"}
    return f"{sum(g.get('conditionType') in true for g in gates)}/{len(gates)}" if gates else NONE


PODS = (
    NAME,
    column("Ready", _pod_ready),
    column("Status", lambda pod: summary(pod).state),
    Column("Restarts", _restarts),
    AGE,
    column("IP", path("status.podIP"), priority=WIDE),
    column("Node", path("spec.nodeName"), priority=WIDE),
    column("Nominated Node", path("status.nominatedNodeName"), priority=WIDE),
    column("Readiness Gates", _gates, priority=WIDE),
)


# Nodes and namespaces.


def _node_state(node: Object) -> str:
    ready = [c for c in node.get("status", {}).get("conditions", ()) if c.get("type") == "Ready"]
    words = ["Unknown" if not ready else "Ready" if ready[0].get("status") == "True" else "NotReady"]
    if node.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


ROLE = "node-role.kubernetes.io/"


def _roles(node: Object) -> str:
    return joined(sorted(key.removeprefix(ROLE) for key in node["metadata"].get("labels", {}) if key.startswith(ROLE)))


def _node_ip(kind: str) -> Callable[[Object], str]:
    def value(node: Object) -> str:
        found = (a.get("address") for a in node.get("status", {}).get("addresses", ()) if a.get("type") == kind)
        return next(found, None) or NONE

    return value


NODES = (
    NAME,
    column("Status", _node_state),
    column("Roles", _roles),
    AGE,
    column("Version", path("status.nodeInfo.kubeletVersion", "")),
    column("Internal-IP", _node_ip("InternalIP"), priority=WIDE),
    column("External-IP", _node_ip("ExternalIP"), priority=WIDE),
    column("OS-Image", path("status.nodeInfo.osImage", UNKNOWN), priority=WIDE),
    column("Kernel-Version", path("status.nodeInfo.kernelVersion", UNKNOWN), priority=WIDE),
    column("Container-Runtime", path("status.nodeInfo.containerRuntimeVersion", UNKNOWN), priority=WIDE),
)
NAMESPACES = (NAME, column("Status", path("status.phase", "")), AGE)


# Workloads.


def _of(done: str, wanted: str) -> Callable[[Object], str]:
    return lambda object_: f"{path(done, 0)(object_)}/{path(wanted, 0)(object_)}"


DEPLOYMENTS = (
    NAME,
    column("Ready", _of("status.readyReplicas", "spec.replicas")),
    number("Up-to-date", "status.updatedReplicas"),
    number("Available", "status.availableReplicas"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
)


def _of_template(field: str) -> Callable[[Object], str]:
    return lambda o: joined(c.get(field, "") for c in at(o, ("template", "spec", "containers")) or ())


POD_TEMPLATES = (
    NAME,
    column("Containers", _of_template("name")),
    column("Images", _of_template("image")),
    column("Pod Labels", lambda o: labels_text(at(o, ("template", "metadata", "labels")))),
)
REPLICA_SETS = (
    NAME,
    number("Desired", "spec.replicas"),
    number("Current", "status.replicas"),
    number("Ready", "status.readyReplicas"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
)
DAEMON_SETS = (
    NAME,
    number("Desired", "status.desiredNumberScheduled"),
    number("Current", "status.currentNumberScheduled"),
    number("Ready", "status.numberReady"),
    number("Up-to-date", "status.updatedNumberScheduled"),
    number("Available", "status.numberAvailable"),
    column("Node Selector", lambda o: labels_text(at(o, ("spec", "template", "spec", "nodeSelector")))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
)


def _controller(object_: Object) -> str:
    owner = next((owner for owner in object_["metadata"].get("ownerReferences", ()) if owner.get("controller")), None)
    return f"{owner['kind'].lower()}.apps/{owner['name']}" if owner else NONE


CONTROLLER_REVISIONS = (NAME, column("Controller", _controller), number("Revision", "revision"), AGE)
STATEFUL_SETS = (NAME, column("Ready", _of("status.readyReplicas", "spec.replicas")), AGE, CONTAINERS, IMAGES)


def _job_state(job: Object) -> str:
    true = {c.get("type") for c in job.get("status", {}).get("conditions", ()) if c.get("status") == "True"}
    for kind, word in (("Complete", "Complete"), ("Failed", "Failed")):
        if kind in true:
            return word
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind, word in (
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if kind in true:
            return word
    return "Running"


def _completions(job: Object) -> str:
    done, spec = job.get("status", {}).get("succeeded", 0), job["spec"]
    if "completions" in spec:
        return f"{done}/{spec['completions']}"
    parallel = spec.get("parallelism", 1)
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(job: Object, now: Now) -> str:
    start, end = at(job, ("status", "startTime")), at(job, ("status", "completionTime"))
    if not start:
        return ""
    until = datetime.datetime.fromisoformat(end) if end else now
    return duration((until - datetime.datetime.fromisoformat(start)).total_seconds())


JOBS = (
    NAME,
    column("Status", _job_state),
    column("Completions", _completions),
    Column("Duration", _job_duration),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
)


# Services and what is around them.


def _external_ip(service: Object) -> str:
    spec = service["spec"]
    kind, ips = spec.get("type"), spec.get("externalIPs", [])
    if kind == "ExternalName":
        return spec.get("externalName") or NONE
    if kind == "LoadBalancer":
        given = [i.get("ip") or i.get("hostname", "") for i in at(service, ("status", "loadBalancer", "ingress")) or ()]
        return joined([*given, *ips], "<pending>")
    return joined(ips)


def _ports(service: Object) -> str:
    return joined(
        f"{p.get('port')}:{p['nodePort']}/{p.get('protocol')}" if p.get("nodePort") else f"{p.get('port')}/{p.get('protocol')}"
        for p in service["spec"].get("ports", ())
    )


SERVICES = (
    NAME,
    column("Type", path("spec.type")),
    column("Cluster-IP", path("spec.clusterIP")),
    column("External-IP", _external_ip),
    column("Port(s)", _ports),
    AGE,
    column("Selector", lambda o: labels_text(o["spec"].get("selector")), priority=WIDE),
)


def _some(texts: list[str], most: int = MAX_PORTS_SHOWN, otherwise: str = UNSET) -> str:
    more = f" + {len(texts) - most} more..." if len(texts) > most else ""
    return joined(texts[:most], otherwise) + more


def _endpoints(endpoints: Object) -> str:
    found: list[str] = []
    for subset in endpoints.get("subsets", ()):
        for address in subset.get("addresses", ()):
            ip = f"[{address['ip']}]" if ":" in address.get("ip", "") else address.get("ip", "")
            ports = subset.get("ports", ())
            found += [f"{ip}:{p.get('port')}" for p in ports] if ports else [ip]
    return _some(found, otherwise=NONE)


ENDPOINTS = (NAME, column("Endpoints", _endpoints), AGE)
ENDPOINT_SLICES = (
    NAME,
    column("AddressType", path("addressType")),
    column("Ports", lambda o: _some([str(p.get("port", "*")) for p in o.get("ports", ())])),
    column("Endpoints", lambda o: _some([a for e in o.get("endpoints", ()) for a in e.get("addresses", ())])),
    AGE,
)


def _hosts(ingress: Object) -> str:
    hosts = [rule["host"] for rule in ingress.get("spec", {}).get("rules", ()) if rule.get("host")]
    return _some(hosts, otherwise="*")


def _ingress_address(ingress: Object) -> str:
    found = at(ingress, ("status", "loadBalancer", "ingress")) or ()
    return ",".join(i.get("ip") or i.get("hostname", "") for i in found)


INGRESSES = (
    NAME,
    column("Class", path("spec.ingressClassName")),
    column("Hosts", _hosts),
    column("Address", _ingress_address),
    column("Ports", lambda o: "80, 443" if o.get("spec", {}).get("tls") else "80"),
    AGE,
)


def _parameters(ingress_class: Object) -> str:
    found = ingress_class.get("spec", {}).get("parameters")
    if not found:
        return NONE
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{found.get('kind')}{group}/{found.get('name')}"


INGRESS_CLASSES = (NAME, column("Controller", path("spec.controller")), column("Parameters", _parameters), AGE)
NETWORK_POLICIES = (NAME, column("Pod-Selector", lambda o: selector_text(at(o, ("spec", "podSelector")))), AGE)
SERVICE_CIDRS = (NAME, column("CIDRs", lambda o: joined(at(o, ("spec", "cidrs")) or ())), AGE)


def _parent(address: Object) -> str:
    found = at(address, ("spec", "parentRef")) or {}
    parts = [found.get("resource", ""), found.get("group", "")]
    owner = ".".join(filter(None, parts))
    return "/".join(filter(None, (owner, found.get("namespace"), found.get("name")))) or NONE


IP_ADDRESSES = (NAME, column("ParentRef", _parent), AGE)


# The rest.

CONFIG_MAPS = (
    NAME,
    column("Data", lambda o: len(o.get("data", ())) + len(o.get("binaryData", ())), "integer"),
    AGE,
)
SECRETS = (
    NAME,
    column("Type", path("type")),
    column("Data", lambda o: len(o.get("data", ())), "integer"),
    AGE,
)
SERVICE_ACCOUNTS = (NAME, column("Secrets", lambda o: len(o.get("secrets", ())), "integer"), AGE)
LEASES = (NAME, column("Holder", path("spec.holderIdentity", "")), AGE)


def _last_seen(event: Object, now: Now) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return since(series or event.get("lastTimestamp") or event.get("eventTime"), now)


def _about(event: Object) -> str:
    about = event.get("involvedObject", {})
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _source(event: Object) -> str:
    source = event.get("source", {})
    return ", ".join(filter(None, (source.get("component") or event.get("reportingComponent"), source.get("host"))))


EVENTS = (
    Column("Last Seen", _last_seen),
    column("Type", path("type", "")),
    column("Reason", path("reason", "")),
    column("Object", _about),
    column("Subobject", path("involvedObject.fieldPath", ""), priority=WIDE),
    column("Source", _source, priority=WIDE),
    column("Message", lambda o: o.get("message", "").strip()),
    Column("First Seen", lambda o, now: since(o.get("firstTimestamp") or o.get("eventTime"), now), priority=WIDE),
    column("Count", path("count", 1), "integer", WIDE),
    column("Name", name_of, priority=WIDE, format_="name"),
)
ROLES = (NAME, CREATED)


def _subjects(kind: str) -> Callable[[Object], str]:
    def value(binding: Object) -> str:
        found = [s for s in binding.get("subjects", ()) if s.get("kind") == kind]
        return ", ".join(f"{s['namespace']}/{s['name']}" if s.get("namespace") else s.get("name", "") for s in found)

    return value


BINDINGS = (
    NAME,
    column("Role", lambda o: f"{o['roleRef'].get('kind')}/{o['roleRef'].get('name')}"),
    AGE,
    column("Users", _subjects("User"), priority=WIDE),
    column("Groups", _subjects("Group"), priority=WIDE),
    column("ServiceAccounts", _subjects("ServiceAccount"), priority=WIDE),
)
CUSTOM_RESOURCE_DEFINITIONS = (NAME, CREATED)
OTHERS = (NAME, AGE)
