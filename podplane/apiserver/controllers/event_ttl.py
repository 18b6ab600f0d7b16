"""Events are forgotten an hour after they were last told (kube-apiserver, --event-ttl)."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from podplane.apiserver.controllers.decision import Action, Again, Controller, Delete, View, itself
from podplane.controllers.objects import Key

TTL_SECONDS = 3600.0


def _decide(view: View, key: Key) -> Iterable[Action]:
    event = view.get("events", key)
    if event is None:
        return
    told = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    left = TTL_SECONDS - (view.now - datetime.datetime.fromisoformat(told)).total_seconds()
    if left <= 0:
        yield Delete("events", event)
    else:
        yield Again(left + 1)


CONTROLLER = Controller("event-ttl-controller", {"events": itself}, _decide)
