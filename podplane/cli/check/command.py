"""`podplane check`: gather members, probe, judge, report."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from podplane.cli.check import (
    lookups,
    names,
    permitted,
    policies,
    promises,
    reach,
    report,
    served,
    services,
    sessions,
    sizes,
    tunnels,
    users,
)
from podplane.cli.check.names import Lookup
from podplane.cli.check.parties import NAMESPACE, Gathered, Member, gathered
from podplane.cli.check.patience import patient, take
from podplane.cli.check.permitted import Permitted
from podplane.cli.check.promises import Party, Probe, Verdict
from podplane.cli.fault import active_faults
from podplane.cli.options import connect, lab_name
from podplane.dns import resolv_conf
from podplane.lab import preflight, spec, underlay
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder

START_SECONDS, STALLED_SECONDS = 30.0, 5.0
"""For all probers to begin; while none of them does."""
PROBE_SECONDS, AGAIN_SECONDS, DENIED_SECONDS = 1.5, 1.2, 0.4
"""How long a probe waits for its answer: TCP sends its first packet again after 1 s; and for one that should not come."""
SECONDS_A_PROBE = 0.3
"""How long an answer to many probes may take, at the very worst: nobody answers, and 16 wait at one time."""
OUTSIDE_PORT = 8080
T = TypeVar("T", Probe, Lookup)


@dataclass(frozen=True, slots=True)
class Site:
    """Where Services are, the domain of their names, whether pods have files of their own, and the networks on each of which nodes reach
    each other without a router."""

    services: users.Site
    domain: str
    have_files: bool
    subnets: tuple[str, ...] = ()


@click.command()
@lab_name
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--all", "everything", is_flag=True, help="Every ordered pair of pods, however many there are.")
@click.option(
    "--patience",
    type=click.FloatRange(1, 1000),
    default=1,
    help="On a machine that is so many times slower than usual: what does not pass is waited for so many times as long.",
)
def check(folder: Folder, as_json: bool, everything: bool, patience: float) -> None:
    """Prove the promises of the Kubernetes network model with packets between all pods, nodes and the world outside.

    Exit status 0: all are kept; 1: one is broken; 2: it could not be found out.
    """
    take(patience)
    client = connect(folder)
    preflight.raise_file_limit()
    settings = spec.load(folder.spec)
    if settings is None:
        raise LabError(f"lab {folder.name!r} has no settings")
    ips = tuple(map(str, underlay.outside_ips(settings.plan())))
    outside = Party(underlay.OUTSIDE, "outside", "", ips, OUTSIDE_PORT)
    for line in active_faults(folder, client.objects("nodes")):
        click.echo(f"A fault is active on {line}.", err=True)
    began = time.monotonic()
    with (
        folder.checking(),
        gathered(client, folder.undo_faults) as who,
        sessions.probers(client, who.members) as (found, refused),
    ):
        site = Site(
            served.site(client, settings),
            settings.cluster_domain,
            not settings.sandbox_only,
            tuple(map(str, settings.plan().links())),
        )
        result = examine(who, found, refused, outside, everything, client, site)
    result.left_out = [*(f"pod {name} ({why})" for name, why in who.left_out.items()), *result.left_out]
    result.seconds = time.monotonic() - began
    click.echo(report.as_json(result) if as_json else report.as_text(result, sys.stdout.isatty()))
    sys.exit(0 if result.ok else 1)


def examine(
    who: Gathered,
    found: Mapping[str, sessions.Prober],
    refused: Mapping[str, str],
    outside: Party | None,
    everything: bool,
    client: Any,
    site: Site,
) -> report.Result:
    """Let the members' servers start, probe from each to the others, and judge the answers."""
    members = who.members
    # The containers of a pod share its ports: the usual one is for the first, which speaks for the pod.
    wishes = {m.name: {"do": "serve", "name": m.name, "anywhere": m.kind == "container"} for m in members if m.name in found}
    serving = sessions.ask_all(found, wishes, patient(START_SECONDS), patient(STALLED_SECONDS))
    parties = {m.name: _party(m, serving[m.name]) for m in members if m.name in serving}
    pods = [p for p in parties.values() if p.kind == "pod"]
    count = sum(m.kind == "pod" and m.namespace != NAMESPACE for m in members)
    everything = everything or count <= promises.EVERY_PAIR_UP_TO
    node_of = {party.name: party.node for party in parties.values()} | {underlay.OUTSIDE: underlay.OUTSIDE}
    allowed = Permitted(who.cluster, parties, {m.name: f"{m.namespace}/{m.pod}" for m in members}, who.judged)
    nodes = [p for p in parties.values() if p.kind == "node"]
    external = {node.metadata.name: node.external_ips for node in site.services.nodes}
    ways = tunnels.between_nodes(client, site.subnets)
    wanted = promises.plan(pods, nodes, outside, everything, allowed.may, *ways, external)
    wanted, denied = permitted.parted(wanted, allowed.probe_denied_by)
    probes = [*reach.thinned(wanted, node_of, who.unreached), *_localhost(members, parties)]
    answers = _probe(found, probes)
    cut_off = reach.cut_off(probes, answers)

    def touches(probe: Probe) -> bool:
        return not {node_of[probe.source], node_of.get(probe.target)}.isdisjoint(who.unreached)

    again = [probe for probe in probes if promises.judge(probe, answers.get(probe))]
    again = [probe for probe in again if not ({probe.source, probe.target} & cut_off or touches(probe))]
    answers.update(_probe(found, again, AGAIN_SECONDS))  # once more, and alone: a busy machine is no broken promise
    narrow = sizes.passing(
        [one for one in again if one.size], answers, lambda asked: _probe(found, asked, sizes.PATIENCE_SECONDS)
    )
    lost = {m.name: refused.get(m.name) or found[m.name].failure or "no answer" for m in members if m.name not in parties}
    found_ips = {name: tuple(a["ips"]) for name, a in serving.items()}
    told = {probe: sizes.sentence(probe, size, node_of) for probe, size in narrow.items()}
    verdicts = _verdicts(probes, answers, {**who.lost, **lost}, pods, found_ips, denied, told)
    verdicts += _examine_policies(who, found, [p for p in parties.values() if p.node not in who.unreached], everything)
    able = {name: p for name, p in parties.items() if name not in cut_off and p.node not in who.silent}
    confs = {name: resolv_conf.read(answer.get("resolv_conf", "")) for name, answer in serving.items()}
    name_site = lookups.NameSite(site.domain, confs if site.have_files else None, outside.ips if outside else ())
    more = _examine_services(client, found, able, site.services.without(who.silent), name_site, allowed)
    excluded = {
        **who.silent,
        **{n: "nothing reaches it" for n in cut_off & parties.keys() if parties[n].node not in who.silent},
    }
    _add(more.verdicts, services.SERVICES, (f"{name} was not asked: {why}" for name, why in excluded.items()))
    return report.Result([*verdicts, *more.verdicts], pods, [*probes, *more.probes], {**answers, **more.answers}, more.left_out)


def _examine_policies(
    who: Gathered, found: Mapping[str, sessions.Prober], parties: Sequence[Party], everything: bool
) -> list[Verdict]:
    """Connections from and to the pods that policies select; nothing while there is none."""
    pods, nodes = ([p for p in parties if p.kind == kind] for kind in ("pod", "node"))
    paths = {member.name: f"{member.namespace}/{member.pod}" for member in who.members}
    judged = policies.plan(pods, nodes, paths, who.cluster, everything)
    answers = _probe(found, [probe for probe, said in judged.items() if said.allowed])
    answers |= _probe(found, [probe for probe, said in judged.items() if not said.allowed], DENIED_SECONDS)
    again = [probe for probe, said in judged.items() if said.allowed and policies.judge(probe, said, answers.get(probe))]
    answers |= _probe(found, again, AGAIN_SECONDS)
    return [policies.verdict(judged, answers)] if judged else []


def _examine_services(
    client: Any,
    found: Mapping[str, sessions.Prober],
    parties: Mapping[str, Party],
    site: users.Site,
    name_site: lookups.NameSite,
    allowed: Permitted,
) -> report.Result:
    """Services of the check's own, and the users', and their names, by parties that reach each other, as far as policies allow it."""
    pods, nodes = ([p for p in parties.values() if p.kind == kind] for kind in ("pod", "node"))
    endpoints, outside = services.endpoints_of(allowed.free(pods) or pods), parties.get(underlay.OUTSIDE)
    if not endpoints or not nodes:
        return report.Result([Verdict(promise) for promise in (*services.PROMISES, *names.PROMISES)], [], [], {})
    made = served.made(client, endpoints, {node.node: site.node_ips.get(node.node, ()) for node in nodes})
    nodes, pods = ([p for p in able if p.node not in made.late] for able in (nodes, pods))
    site = site.without(made.late)
    ways = served.users(client, site)
    ends = _probe(found, permitted.parted(users.direct(ways, nodes, pods), allowed.probe_denied_by)[0])
    open_ways = users.listening(ways, ends)
    behind = services.behind(made.own) | users.behind(open_ways)
    wanted = services.plan(made.own, pods, nodes, outside, allowed.may) if pods and nodes else []
    probes, denied = permitted.parted(wanted, lambda one: allowed.probe_denied_by(one, behind))
    wanted = users.plan(open_ways, pods, nodes, outside)
    theirs, denied_theirs = permitted.parted(wanted, lambda one: allowed.probe_denied_by(one, behind))
    answers = _probe(found, [*probes, *theirs])
    again = [probe for probe in (*probes, *theirs) if services.judge_probe(probe, answers.get(probe))]
    answers.update(_probe(found, again, AGAIN_SECONDS))
    left_out = users.deaf(ways, ends)
    if any(services.judge_probe(probe, answers.get(probe)) for probe in theirs):
        moved = users.changed(ways, served.users(client, site))
        theirs = [probe for probe in theirs if probe.target.removeprefix("Service ") not in moved]
        left_out += [f"Service {name} (it changed meanwhile)" for name in sorted(moved)]
    probes += theirs
    verdicts = services.verdicts(probes, answers, endpoints)
    permitted.note(verdicts, denied | denied_theirs)
    late = (f"{node} has not taken the check's Services: {why}" for node, why in made.late.items())
    _add(verdicts, services.SERVICES, late)
    elsewhere = (f"Service {name} is announced by {node}, which can't be asked" for name, node in made.elsewhere.items())
    _add(verdicts, services.FROM_OUTSIDE, elsewhere)
    of_names, not_asked = lookups.examine(
        client,
        made.own,
        pods,
        nodes,
        name_site,
        lambda asked, again: _ask(found, asked, AGAIN_SECONDS if again else PROBE_SECONDS),
        allowed.lookup_denied_by,
    )
    return report.Result([*verdicts, *of_names], [], probes, answers, [*left_out, *not_asked])


def _add(verdicts: Iterable[Verdict], promise: str, failures: Iterable[str]) -> None:
    """Failures that no probe found."""
    for verdict in verdicts:
        if verdict.promise == promise:
            verdict.failures += failures


def _party(member: Member, serving: sessions.Answer) -> Party:
    return Party(member.name, member.kind, member.node, member.ips, serving["port"], serving["mtu"], member.pings)


def _localhost(members: Sequence[Member], parties: Mapping[str, Party]) -> list[Probe]:
    """From the second container of a pod to the server of the first, over localhost."""
    first = {(m.namespace, m.pod): m.name for m in members if m.kind == "pod"}
    pairs = [(m.name, first[m.namespace, m.pod]) for m in members if m.kind == "container" and m.name in parties]
    return [
        Probe(promises.LOCALHOST, source, target, "tcp", ip, parties[target].port, seen=ip, answered_by=target)
        for source, target in pairs
        if target in parties
        for ip in sorted({"::1" if ":" in ip else "127.0.0.1" for ip in parties[target].ips})
    ]


def _probe(
    found: Mapping[str, sessions.Prober], probes: Iterable[Probe], patience: float = PROBE_SECONDS
) -> dict[Probe, sessions.Answer]:
    """What became of each probe, which waits for so many seconds; of those whose source gave no answer, nothing."""
    return _asked(found, probes, _question, patience)


def _ask(found: Mapping[str, sessions.Prober], asked: Iterable[Lookup], patience: float) -> dict[Lookup, sessions.Answer]:
    """The same for questions about names."""
    return _asked(found, asked, Lookup.probe, patience)


def _asked(
    found: Mapping[str, sessions.Prober], probes: Iterable[T], question: Callable[[T], dict[str, Any]], patience: float
) -> dict[T, sessions.Answer]:
    by_source: dict[str, list[T]] = defaultdict(list)
    for probe in probes:
        if not found[probe.source].failure:
            by_source[probe.source].append(probe)
    if not by_source:
        return {}
    seconds = patient(patience)
    questions = {
        source: {"do": "probe", "probes": [question(p) for p in own], "seconds": seconds} for source, own in by_source.items()
    }
    longest = max(len(own) for own in by_source.values())
    answers = sessions.ask_all(found, questions, patient(START_SECONDS + SECONDS_A_PROBE * longest))
    return {
        probe: answer
        for source, reply in answers.items()
        for probe, answer in zip(by_source[source], reply["answers"], strict=True)
    }


def _question(probe: Probe) -> dict[str, Any]:
    protocol = "http" if probe.target == underlay.OUTSIDE else probe.protocol
    return {"protocol": protocol, "ip": probe.ip, "port": probe.port, "size": probe.size}


def _verdicts(
    probes: Sequence[Probe],
    answers: Mapping[Probe, sessions.Answer],
    lost: Mapping[str, str],
    pods: Sequence[Party],
    found_ips: Mapping[str, Sequence[str]],
    denied: Mapping[Probe, str],
    told: Mapping[Probe, str],
) -> list[Verdict]:
    """One verdict a promise, in the order of the table; `told` has better words for failures of some probes."""
    verdicts = {promise: Verdict(promise) for promise in promises.PROMISES}
    verdicts[promises.UNIQUE] = promises.uniqueness(pods, found_ips)
    reached: dict[str, int] = defaultdict(int)
    for probe in probes:
        failure = promises.judge(probe, answers.get(probe))
        verdict = verdicts[probe.promise]
        if failure:
            verdict.failures.append(told.get(probe, failure))
        else:
            verdict.proved += 1
            reached[probe.answered_by] += probe.promise != promises.LOCALHOST
    asked = {probe.answered_by for probe in probes}
    by = {probe.answered_by: by for probe, by in denied.items() if probe.answered_by not in asked}
    hidden = {pod.name: by[pod.name] for pod in pods if pod.name in by}
    verdicts[promises.SAME_PORT] = promises.same_port(pods, reached, hidden)
    permitted.note(verdicts.values(), denied)
    verdicts[promises.REACH].failures += [f"{name}: {why}" for name, why in lost.items()]
    return list(verdicts.values())
