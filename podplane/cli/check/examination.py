"""What a check asks of its parties, one thing after the other, and the verdicts on their answers: the same in every `scene`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from podplane.cli.check import (
    names,
    permitted,
    promises,
    questions,
    reach,
    report,
    services,
    sessions,
    sizes,
    users,
)
from podplane.cli.check.parties import Gathered, Member
from podplane.cli.check.patience import patient
from podplane.cli.check.permitted import Permitted
from podplane.cli.check.promises import Party, Probe, Verdict
from podplane.cli.check.questions import AGAIN_SECONDS, PROBE_SECONDS, START_SECONDS
from podplane.cli.check.scene import Scene
from podplane.dns import resolv_conf

Found = Mapping[str, sessions.Prober]


def examine(who: Gathered, found: Found, refused: Mapping[str, str], everything: bool, scene: Scene) -> report.Result:
    """Let the members' servers start, probe from each to the others, and judge the answers."""
    members, outside = who.members, scene.outside
    # The containers of a pod share its ports: the usual one is for the first, which speaks for the pod.
    wishes = {m.name: {"do": "serve", "name": m.name, "anywhere": m.kind == "container"} for m in members if m.name in found}
    serving = sessions.ask_all(found, wishes, patient(START_SECONDS), patient(scene.stalled_seconds))
    parties = {m.name: _party(m, serving[m.name]) for m in members if m.name in serving}
    pods = [p for p in parties.values() if p.kind == "pod"]
    node_of = {party.name: party.node for party in parties.values()} | ({outside.name: outside.name} if outside else {})
    allowed = Permitted(who.cluster, parties, {m.name: f"{m.namespace}/{m.pod}" for m in members}, who.judged)
    nodes = [p for p in parties.values() if p.kind == "node"]
    external = {node.metadata.name: node.external_ips for node in scene.site.nodes}
    wanted = promises.plan(pods, nodes, outside, everything, allowed.may, *scene.ways(), external)
    wanted, denied = permitted.parted(wanted, allowed.probe_denied_by)
    probes = [*reach.thinned(wanted, node_of, who.unreached), *_localhost(members, parties)]
    answers = questions.probe(found, probes)
    cut_off = reach.cut_off(probes, answers)

    def touches(probe: Probe) -> bool:
        return not {node_of[probe.source], node_of.get(probe.target)}.isdisjoint(who.unreached)

    again = [probe for probe in probes if promises.judge(probe, answers.get(probe))]
    again = [probe for probe in again if not ({probe.source, probe.target} & cut_off or touches(probe))]
    answers.update(questions.probe(found, again, AGAIN_SECONDS))  # once more, and alone: a busy machine is no broken promise
    narrow = sizes.passing(
        [one for one in again if one.size], answers, lambda asked: questions.probe(found, asked, sizes.PATIENCE_SECONDS)
    )
    lost = {m.name: refused.get(m.name) or found[m.name].failure or "no answer" for m in members if m.name not in parties}
    found_ips = {name: tuple(a["ips"]) for name, a in serving.items()}
    told = {probe: sizes.sentence(probe, size, node_of) for probe, size in narrow.items()}
    verdicts = _verdicts(probes, answers, {**who.lost, **lost}, pods, found_ips, denied, told)
    able = {name: p for name, p in parties.items() if name not in cut_off and p.node not in who.silent}
    confs = {name: resolv_conf.read(answer.get("resolv_conf", "")) for name, answer in serving.items()}
    more = _examine_services(found, able, scene, who, confs, allowed)
    excluded = {
        **who.silent,
        **{n: "nothing reaches it" for n in cut_off & parties.keys() if parties[n].node not in who.silent},
    }
    _add(more.verdicts, services.SERVICES, (f"{name} was not asked: {why}" for name, why in excluded.items()))
    reached = [p for p in parties.values() if p.node not in who.unreached]
    last = scene.further(who, reached, everything, lambda asked, seconds: questions.probe(found, asked, seconds))
    told_of = [*verdicts, *last, *more.verdicts]
    for one in told_of:
        one.not_tried = scene.unproved.get(one.promise, one.not_tried) if not one.tried else ""
    return report.Result(told_of, pods, [*probes, *more.probes], {**answers, **more.answers}, more.left_out)


def _examine_services(
    found: Found,
    parties: Mapping[str, Party],
    scene: Scene,
    who: Gathered,
    confs: Mapping[str, resolv_conf.ResolvConf],
    allowed: Permitted,
) -> report.Result:
    """Services of the check's own, and the users', and their names, by parties that reach each other, as far as policies allow it."""
    pods, nodes = ([p for p in parties.values() if p.kind == kind] for kind in ("pod", "node"))
    endpoints = services.endpoints_of(allowed.free(pods) or pods)
    if not endpoints or not (nodes or scene.unproved.get(promises.NODE_TO_POD)):
        return report.Result([Verdict(promise) for promise in (*services.PROMISES, *names.PROMISES)], [], [], {})
    site = scene.site.without(who.silent)
    node_ips = {node.node: site.node_ips.get(node.node, ()) for node in nodes}
    made = scene.made(endpoints, node_ips, [*nodes, *pods], lambda asked, seconds: questions.probe(found, asked, seconds))
    nodes, pods = ([p for p in able if p.node not in made.late] for able in (nodes, pods))
    site = site.without(made.late)
    ways = scene.users(site)
    ends = questions.probe(found, permitted.parted(users.direct(ways, nodes, pods), allowed.probe_denied_by)[0])
    open_ways = users.listening(ways, ends)
    behind = services.behind(made.own) | users.behind(open_ways)
    wanted = services.plan(made.own, pods, nodes, None, allowed.may) if pods else []
    outsiders = list(scene.outsiders(parties, nodes)) if pods else []
    wanted += [probe for one, asked in outsiders for probe in services.from_outside(made.own, asked, one)]
    probes, denied = permitted.parted(wanted, lambda one: allowed.probe_denied_by(one, behind))
    wanted = users.plan(open_ways, pods, nodes, outsiders[0][0] if outsiders else None)
    theirs, denied_theirs = permitted.parted(wanted, lambda one: allowed.probe_denied_by(one, behind))
    answers = questions.probe(found, [*probes, *theirs])
    again = [probe for probe in (*probes, *theirs) if services.judge_probe(probe, answers.get(probe))]
    answers.update(questions.probe(found, again, AGAIN_SECONDS))
    left_out = users.deaf(ways, ends)
    if any(services.judge_probe(probe, answers.get(probe)) for probe in theirs):
        moved = users.changed(ways, scene.users(site))
        theirs = [probe for probe in theirs if probe.target.removeprefix("Service ") not in moved]
        left_out += [f"Service {name} (it changed meanwhile)" for name in sorted(moved)]
    probes += theirs
    verdicts = services.verdicts(probes, answers, endpoints)
    permitted.note(verdicts, denied | denied_theirs)
    late = (f"{node} has not taken the check's Services: {why}" for node, why in made.late.items())
    _add(verdicts, services.SERVICES, late)
    elsewhere = (f"Service {name} is announced by {node}, which can't be asked" for name, node in made.elsewhere.items())
    _add(verdicts, services.FROM_OUTSIDE, elsewhere)
    of_names, not_asked = scene.names(
        made.own,
        pods,
        nodes,
        confs,
        lambda asked, again: questions.look_up(found, asked, AGAIN_SECONDS if again else PROBE_SECONDS),
        allowed.lookup_denied_by,
    )
    return report.Result([*verdicts, *of_names], [], probes, answers, [*left_out, *not_asked])


def _add(verdicts: Iterable[Verdict], promise: str, failures: Iterable[str]) -> None:
    """Failures that no probe found."""
    for verdict in verdicts:
        if verdict.promise == promise:
            verdict.failures += failures


def _party(member: Member, serving: sessions.Answer) -> Party:
    pings = member.pings and bool(serving.get("pings", True))
    datagrams = bool(serving.get("datagrams", False))
    return Party(member.name, member.kind, member.node, member.ips, serving["port"], serving["mtu"], pings, datagrams)


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
