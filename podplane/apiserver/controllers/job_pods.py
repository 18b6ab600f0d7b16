"""The pods of a job: which are its own, how they are made, which are worth least. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from podplane.apiserver.controllers.decision import Action, Patch, View
from podplane.apiserver.controllers.job_failures import FAILURES, IGNORED, failures_after
from podplane.apiserver.controllers.pods import BURST, made_of
from podplane.apiserver.controllers.replica_set import worth
from podplane.controllers.objects import Object, controller_of, matches, owned_by

RESOURCE, KIND, API_VERSION = "jobs.batch", "Job", "batch/v1"
FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX, VARIABLE = "batch.kubernetes.io/job-completion-index", "JOB_COMPLETION_INDEX"
LONGEST_PREFIX = 58
"""Of a generated name, so that the index is not cut off (apiserver, storage/names/generate.go)."""


def is_indexed(job: Object) -> bool:
    """Has each of its pods an index?"""
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_tracked(pod: Object) -> bool:
    """Has it not been counted yet?"""
    return FINALIZER in pod["metadata"].get("finalizers", ())


def index_of(job: Object, pod: Object) -> int | None:
    """The index of a pod; None for one that has none, or none of this job."""
    text = pod["metadata"].get("annotations", {}).get(INDEX, "")
    index = int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else -1
    return index if 0 <= index < job["spec"].get("completions", 0) else None


def _finalizers(pod: Object) -> list[str] | None:
    return [name for name in pod["metadata"].get("finalizers", ()) if name != FINALIZER] or None


def untrack(pod: Object) -> Iterator[Action]:
    """It has been counted, or need not be: nobody holds it any more."""
    if is_tracked(pod):
        yield Patch("pods", pod, {"metadata": {"finalizers": _finalizers(pod)}})


def untrack_some(pods: Iterable[Object]) -> Iterator[Action]:
    """So many of them as one decision may."""
    for pod in itertools.islice(filter(is_tracked, pods), BURST):
        yield from untrack(pod)


def is_of(job: Object | None, pod: Object) -> bool:
    """Is it a pod of this job, and not of one that had its name before?"""
    owner = controller_of(pod)
    return job is not None and owner is not None and bool(owner["uid"] == job["metadata"]["uid"])


def claim(view: View, job: Object, own: Iterable[Object]) -> Iterator[Action]:
    """Let go of its own pods that match no more, and take those that match and have no controller (controller_ref_manager.go)."""
    metadata, selector = job["metadata"], job["spec"]["selector"]
    strangers = (pod for pod in own if not matches(selector, pod["metadata"].get("labels", {})))
    for pod in itertools.islice(strangers, BURST):
        kept = [o for o in pod["metadata"]["ownerReferences"] if o["uid"] != metadata["uid"]]
        yield Patch("pods", pod, {"metadata": {"ownerReferences": kept or None, "finalizers": _finalizers(pod)}})
    found = (pod for pod in view.unowned(metadata["namespace"], selector) if "deletionTimestamp" not in pod["metadata"])
    for pod in itertools.islice(found, BURST):
        others, finalizers = pod["metadata"].get("ownerReferences", []), _finalizers(pod) or []
        owners = [*others, owned_by(job, KIND, API_VERSION)]
        yield Patch("pods", pod, {"metadata": {"ownerReferences": owners, "finalizers": [*finalizers, FINALIZER]}})


def pod_of(job: Object, index: int | None, before: Object | None) -> Object:
    """A new pod; `before` is the failed one in whose place it comes, where failures are counted for each index."""
    pod = made_of(job["spec"]["template"], job, KIND, API_VERSION)
    pod["metadata"].setdefault("finalizers", []).append(FINALIZER)
    pod["metadata"]["finalizers"] = list(dict.fromkeys(pod["metadata"]["finalizers"]))
    pod["spec"].setdefault("restartPolicy", "Never")
    if index is not None:
        _give_index(pod, job["metadata"]["name"], str(index))
        if "backoffLimitPerIndex" in job["spec"]:
            failures, ignored = failures_after(job, before)
            pod["metadata"]["annotations"][FAILURES] = str(failures)
            if ignored:
                pod["metadata"]["annotations"][IGNORED] = str(ignored)
    return pod


def _give_index(pod: Object, name: str, index: str) -> None:
    """Its name, host name, label, annotation and variable."""
    end = f"-{index}-"
    pod["metadata"]["generateName"] = f"{name[: LONGEST_PREFIX - len(end)]}{end}"
    for part in ("labels", "annotations"):
        pod["metadata"][part] = {**pod["metadata"].get(part, {}), INDEX: index}
    pod["spec"]["hostname"] = f"{name}-{index}"
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        if not any(variable["name"] == VARIABLE for variable in container.get("env", ())):
            container.setdefault("env", []).append({"name": VARIABLE, "valueFrom": source})


def superfluous(job: Object, active: Sequence[Object], least: int) -> list[Object]:
    """Pods to be taken away: those without an index of the job, all but one of an index, and so many at least."""
    indexes = [index_of(job, pod) for pod in active] if is_indexed(job) else []
    if least <= 0 and None not in indexes and len(set(indexes)) == len(indexes):
        return []
    nowhere: Counter[str] = Counter()
    by_worth = sorted(active, key=lambda pod: worth(pod, nowhere))
    found: list[Object] = []
    if is_indexed(job):
        best = {index_of(job, pod): pod["metadata"]["uid"] for pod in by_worth}
        best.pop(None, None)
        kept = set(best.values())
        found = [pod for pod in by_worth if pod["metadata"]["uid"] not in kept]
    uids = {pod["metadata"]["uid"] for pod in found}
    left = [pod for pod in by_worth if pod["metadata"]["uid"] not in uids]
    return found + left[: max(0, least - len(found))]
