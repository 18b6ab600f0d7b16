"""Who reaches whom, as tables of pods that fare alike. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from podplane.cli.policy.cluster import Cluster
from podplane.cli.policy.grouped import group_names
from podplane.cli.policy.show import grid, legend
from podplane.policy.ends import End, ends_of
from podplane.policy.matrix import Matrix, Question, Row, matrix

Object = dict[str, Any]
EVERYTHING, SOME, NOTHING = "✓", "o", "·"


@dataclass(frozen=True, slots=True)
class Table:
    """Groups of pods of one IP version that fare alike; `cells[from][to]`, where the diagonal is within the group."""

    versions: tuple[int, ...]
    asked: Question | None
    groups: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[str, ...], ...]

    def text(self, *, with_version: bool) -> str:
        """For people."""
        head = [f"IPv{self.versions[0]}:"] if with_version else []
        marks = {EVERYTHING: "everything is allowed", SOME: "some ports are", NOTHING: "nothing is"}
        if self.asked is not None:
            marks = {EVERYTHING: f"{self.asked[0]} {self.asked[1]} is allowed", NOTHING: "it is denied"}
        return "\n".join([*head, grid(group_names(self.groups), self.cells), "", legend(marks)])

    def document(self) -> Object:
        """For programs."""
        words = {EVERYTHING: "everything", SOME: "some", NOTHING: "nothing"}
        reach = [[words[cell] for cell in row] for row in self.cells]
        port = {} if self.asked is None else {"protocol": self.asked[0], "port": self.asked[1]}
        return {"versions": list(self.versions), **port, "groups": [list(group) for group in self.groups], "reach": reach}


def tables(cluster: Cluster, namespace: str, asked: Question | None) -> list[Table]:
    """That of each IP version that pods of a namespace (of all for "") have; one for both, if they say the same."""
    pods = [pod for path, pod in sorted(cluster.pods.items()) if not pod.host_network and not pod.has_ended]
    ends = [end for pod in pods if namespace in ("", pod.metadata.namespace) for end in ends_of(pod)]
    found: list[Table] = []
    for version in (4, 6):
        own = [end for end in ends if (":" in end.ip) is (version == 6)]
        if not own:
            continue
        table = Table((version,), asked, *_grouped(own, matrix(own, cluster.index, asked)))
        if found and (found[0].groups, found[0].cells) == (table.groups, table.cells):
            found = [Table((4, 6), asked, table.groups, table.cells)]
        else:
            found.append(table)
    return found


def _grouped(ends: Sequence[End], found: Matrix) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Pods of one namespace that no policy tells apart, and what each group reaches."""
    alike: defaultdict[object, list[int]] = defaultdict(list)
    for place, (end, kind) in enumerate(zip(ends, found.kinds, strict=True)):
        alike[end.path.partition("/")[0], kind].append(place)
    groups = list(alike.values())
    cells = tuple(tuple(_cell(found.rows, one, other) for other in groups) for one in groups)
    return tuple(tuple(ends[place].path for place in group) for group in groups), cells


def _cell(rows: Sequence[Row], one: Sequence[int], other: Sequence[int]) -> str:
    """Between two pods of them; within a group of one, the pod itself."""
    source, destination = one[0], other[-1]
    if rows[source].everything >> destination & 1:
        return EVERYTHING
    return SOME if rows[source].something >> destination & 1 else NOTHING
