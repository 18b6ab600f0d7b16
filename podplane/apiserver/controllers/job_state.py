"""What a job that has not ended is made of: its pods, what of them is to be counted, and what that comes to.

Sources: kube-controller-manager, pkg/controller/job (job_controller.go, indexed_job_utils.go).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from podplane.apiserver.controllers.decision import View
from podplane.apiserver.controllers.job_failures import Backoff, counts, fails_index, has_failed, last_of_index
from podplane.apiserver.controllers.job_pods import index_of, is_indexed, is_tracked
from podplane.apiserver.kinds.job_indexes import Indexes
from podplane.controllers.objects import Object
from podplane.model.phases import ENDED


class JobState:
    """A job, its pods as they are now, and the numbers that follow: `done` and `given_up` are indexes, `dead` uids of pods that failed."""

    def __init__(self, view: View, job: Object, pods: list[Object], backoff: Backoff) -> None:
        self.view, self.job, self.now = view, job, view.now
        self.spec, self.status = job["spec"], job.get("status", {})
        self.indexed = is_indexed(job)
        self.per_index = self.indexed and "backoffLimitPerIndex" in self.spec
        uncounted = self.status.get("uncountedTerminatedPods") or {}
        self.known = {*uncounted.get("succeeded", ()), *uncounted.get("failed", ())}
        self.look(pods)
        self.dead = {pod["metadata"]["uid"] for pod in self.pods if has_failed(job, pod)}
        fresh = [pod for pod in self.pods if self.is_new(pod)]
        self.won = [pod for pod in fresh if pod.get("status", {}).get("phase") == "Succeeded"]
        self.lost = [pod for pod in fresh if pod["metadata"]["uid"] in self.dead]
        self.counted, self.backoff = backoff, backoff.after(self.won, self.lost)
        self.failed = self.status.get("failed", 0) + sum(counts(job, pod) for pod in self.lost)
        self.done = self._indexes("completedIndexes") | self.indexes_of(self.won)
        self.given_up = self._indexes("failedIndexes")
        if self.per_index:
            self.given_up |= self.indexes_of(pod for pod in self.lost if fails_index(job, pod))
        self.succeeded = len(self.done) if self.indexed else self.status.get("succeeded", 0) + len(self.won)

    def look(self, pods: list[Object]) -> None:
        """These are its pods now."""
        self.pods = pods
        living = [pod for pod in self.pods if pod.get("status", {}).get("phase") not in ENDED]
        self.active = [pod for pod in living if "deletionTimestamp" not in pod["metadata"]]
        self.terminating = [pod for pod in living if "deletionTimestamp" in pod["metadata"]]

    def count(self, pods: Iterable[Object]) -> None:
        """These are told of in the status: they won't be new again, and `counted` is the back-off with them."""
        uids = {pod["metadata"]["uid"] for pod in pods}
        won, lost = ([pod for pod in new if pod["metadata"]["uid"] in uids] for new in (self.won, self.lost))
        self.counted = self.counted.after(won, lost)

    def is_new(self, pod: Object) -> bool:
        """Can it be counted, and was it not yet?"""
        is_valid = not self.indexed or index_of(self.job, pod) is not None
        return is_valid and is_tracked(pod) and pod["metadata"]["uid"] not in self.known

    def _indexes(self, field: str) -> Indexes:
        return Indexes.named(self.status.get(field, ""), self.spec["completions"]) if self.indexed else Indexes()

    def indexes_of(self, pods: Iterable[Object]) -> Indexes:
        """The indexes of some pods."""
        return Indexes.of(index for pod in pods if (index := index_of(self.job, pod)) is not None)

    @property
    def is_suspended(self) -> bool:
        """Shall it have no pods now?"""
        return bool(self.spec.get("suspend"))

    def left(self) -> float | None:
        """Seconds until its deadline; None without one."""
        deadline, began = self.spec.get("activeDeadlineSeconds"), self.status.get("startTime")
        if deadline is None or self.is_suspended:
            return None
        since = datetime.datetime.fromisoformat(began) if began else self.now
        return max(0.0, float(deadline) - (self.now - since).total_seconds())

    def delayed(self) -> dict[int, Object]:
        """The failed pods that are kept until another comes in their place, which takes over their count, by index."""
        if not self.per_index:
            return {}
        held = self.done | self.given_up | self.indexes_of(self.active)
        by_index: dict[int, list[Object]] = {}
        for pod in self.lost:
            index = index_of(self.job, pod)
            if index is not None and index not in held:
                by_index.setdefault(index, []).append(pod)
        return {index: last_of_index(pods) for index, pods in by_index.items()}
