"""Names looked up by the parties of a check, and what the API says that they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.check import names
from podplane.cli.check.names import Asker, Lookup
from podplane.cli.check.parties import NAMESPACE
from podplane.cli.check.permitted import note, parted
from podplane.cli.check.promises import Party, Verdict
from podplane.cli.check.services import Own
from podplane.cli.dns import asking, statuses
from podplane.dns.resolv_conf import ResolvConf
from podplane.lab.errors import LabError

Object = dict[str, Any]
Answer = Mapping[str, Any]
Ask = Callable[[Iterable[Lookup], bool], Mapping[Lookup, Answer]]
"""Asks each question, once more when it is said; what became of each."""
DeniedBy = Callable[[Lookup], str]
Services = Callable[[], Mapping[str, Object]]
"""The users' Services by path, as they are now."""
EVERY_POD_UP_TO, ON_A_NODE = 50, 2
"""With more pods, so many of each node ask."""
NO_ZONE = "names outside of the cluster (no zone of the ConfigMap kube-system/podplane-dns is asked from the host outside)"
SERVERS = 3
"""So many are asked for their configuration, which is the same for all."""


@dataclass(frozen=True, slots=True)
class NameSite:
    """The cluster's domain, and each party's resolv.conf as it found it (None in a lab whose pods have no files of their own); the
    addresses of the host outside."""

    domain: str
    confs: Mapping[str, ResolvConf] | None
    outside_ips: Sequence[str]


def examine(
    client: Any, own: Own, pods: Sequence[Party], nodes: Sequence[Party], site: NameSite, ask: Ask, denied_by: DeniedBy
) -> tuple[list[Verdict], list[str]]:
    """A verdict for each promise about names, and what was left out. `denied_by` says of a question what policy denies it, if any."""
    try:
        servers = asking.servers(client)
    except LabError as error:
        return [Verdict(names.RESOLVE, failures=[str(error)])], []
    parties = [*some(pods), *nodes]
    confs = dict.fromkeys((one.name for one in parties), ResolvConf(servers)) if site.confs is None else site.confs
    askers, left_out = names.askers(parties, confs, servers)
    zone = _outside(client, nodes, site.outside_ips)
    if site.outside_ips and not zone:
        left_out.append(NO_ZONE)
    wanted = names.plan(own, askers, NAMESPACE, site.domain, zone)
    verdicts, more = judged(wanted, askers, site.domain, lambda: _services(client), ask, denied_by)
    return verdicts, [*left_out, *more]


def judged(
    wanted: Iterable[Lookup], askers: Sequence[Asker], domain: str, services: Services, ask: Ask, denied_by: DeniedBy
) -> tuple[list[Verdict], list[str]]:
    """Verdicts on these questions, and on the names of the users' `services`; and what was left out."""
    before, left_out = services(), list[str]()
    lookups, denied = parted(wanted, denied_by)
    silent = {lookup.source for lookup in denied}
    theirs = names.of_users(before.values(), [one for one in askers if one.name not in silent], domain)
    answers = resolved(ask, [*lookups, *theirs])
    failed = [lookup for lookup, answer in answers.items() if names.judge(lookup, answer)]
    answers.update(ask(failed, True))
    if any(names.judge(lookup, answers.get(lookup)) for lookup in failed):
        after = services()
        changed = {name for name, service in before.items() if after.get(name) != service}
        gone = {one for one in theirs if _service_of(one) in changed}
        answers = {lookup: answer for lookup, answer in answers.items() if lookup not in gone}
        left_out += [f"names of Service {name} (it changed meanwhile)" for name in sorted(changed)]
    verdicts = names.verdicts(answers, {k: v for k, v in answers.items() if v is not None})
    note(verdicts, denied)
    return verdicts, left_out


def resolved(ask: Ask, lookups: Iterable[Lookup]) -> dict[Lookup, Answer | None]:
    """The last question of each, and its answer: what is denied is looked for along the search path."""
    found: dict[Lookup, Answer | None] = {}
    todo = list(dict.fromkeys(lookups))
    while todo:
        answers, further = ask(todo, False), []
        for lookup in todo:
            answer = answers.get(lookup)
            if (after := names.following(lookup, answer)) is not None:
                further.append(after)
            else:
                found[lookup] = answer
        todo = further
    return found


def some(pods: Sequence[Party]) -> list[Party]:
    """All pods, or some of each node where there are many."""
    if len(pods) <= EVERY_POD_UP_TO:
        return list(pods)
    on: Counter[str] = Counter()
    chosen = []
    for pod in pods:
        on[pod.node] += 1
        if on[pod.node] <= ON_A_NODE:
            chosen.append(pod)
    return chosen


def _services(client: Any) -> dict[str, Object]:
    """The users' Services with cluster IPs, by path, with only what their names are made of."""
    found = {}
    for service in client.objects("services"):
        meta, spec = service["metadata"], service["spec"]
        if meta["namespace"] != NAMESPACE and "deletionTimestamp" not in meta and spec["type"] != "ExternalName":
            kept = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
            found[f"{meta['namespace']}/{meta['name']}"] = {
                "metadata": kept,
                "spec": {"clusterIPs": spec.get("clusterIPs", [])},
            }
    return found


def _service_of(lookup: Lookup) -> str:
    name, namespace, *_ = lookup.name.split(".")
    return f"{namespace}/{name}"


def _outside(client: Any, nodes: Sequence[Party], ips: Sequence[str]) -> str:
    """A zone that the host outside answers for, by the configuration of the first server that answers; "" when there is none."""
    manifests = statuses.nodes(client)
    chosen = [manifests[node.node] for node in nodes[:SERVERS] if node.node in manifests]
    for status in statuses.of_nodes(client, chosen, lambda node: ""):
        for upstream in status.get("upstreams", ()):
            if upstream["server"] in ips and upstream["zone"] != ".":
                return str(upstream["zone"])
    return ""
