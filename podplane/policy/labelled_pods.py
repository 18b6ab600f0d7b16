"""The pods of one namespace, by name and by the labels that selectors ask for.

The values of a key are gathered when a selector asks for it, and kept current from then on. So a pod that comes or goes costs what those of
its labels cost that are asked for, and a label that no selector reads costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from podplane.model.pod_info import Labels, PodInfo
from podplane.model.policy import Requirement

FEW = 16
"""So many pods are looked at one by one: no other label is asked for."""
MOST_KEYS = 256
"""The values of so many keys are kept; of more, those of the keys that were asked for first are forgotten."""
Names = list[dict[str, None]]


class LabelledPods:
    """See the head of the module."""

    __slots__ = ("_by_name", "_values", "by_name")

    def __init__(self) -> None:
        self._by_name: dict[str, PodInfo] = {}
        self._values: dict[str, dict[str, dict[str, None]]] = {}
        """Key → value → names."""
        self.by_name: Mapping[str, PodInfo] = MappingProxyType(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def set(self, name: str, pod: PodInfo) -> None:
        """A pod came, or changed."""
        old = self._by_name.get(name)
        self._by_name[name] = pod
        labels = pod.metadata.labels
        if self._values and (old is None or old.metadata.labels != labels):
            if old is not None:
                self._discard(name, old.metadata.labels)
            for key, value in labels.pairs():
                if (by_value := self._values.get(key)) is not None:
                    by_value.setdefault(value, {})[name] = None

    def remove(self, name: str) -> None:
        """A pod went; it was there."""
        self._discard(name, self._by_name.pop(name).metadata.labels)

    def gather(self, requirements: Iterable[Requirement], room: int) -> int:
        """Gather keys of the requirements that nobody asked for, as long as too many pods fulfil the others; so many pods were looked at.
        With room for less than one nothing is."""
        terms, looked = [one for one in requirements if one.operator == "In"], 0
        missing = [one for one in terms if one.key not in self._values]
        count = min((_total(names) for names in self._named(terms)), default=len(self)) if missing else 0
        for one in missing:
            if count <= FEW or looked >= room:
                break
            self._gather(one.key)
            looked += len(self)
            count = min(count, *map(_total, self._named((one,))))
        return looked

    def candidates(self, requirements: Iterable[Requirement]) -> Collection[PodInfo]:
        """All pods whose labels fulfil the requirements, and some others."""
        best = min(self._named(requirements), key=_total, default=None) if len(self) > FEW else None
        return self._by_name.values() if best is None else [self._by_name[name] for names in best for name in names]

    def _named(self, requirements: Iterable[Requirement]) -> Iterator[Names]:
        """The names of the pods that fulfil each of the requirements whose key was gathered."""
        for key, operator, values in requirements:
            if operator == "In" and (by_value := self._values.get(key)) is not None:
                yield [names for value in values if (names := by_value.get(value))]

    def _gather(self, key: str) -> None:
        if len(self._values) >= MOST_KEYS:
            del self._values[next(iter(self._values))]
        by_value = self._values[key] = {}
        for name, pod in self._by_name.items():
            if (value := pod.metadata.labels.get(key)) is not None:
                by_value.setdefault(value, {})[name] = None

    def _discard(self, name: str, labels: Labels) -> None:
        if not self._values:
            return
        for key, value in labels.pairs():
            if (by_value := self._values.get(key)) is not None:
                del by_value[value][name]
                if not by_value[value]:
                    del by_value[value]


def _total(names: Names) -> int:
    return sum(map(len, names))
