"""What a name server answers over HTTP about itself and about names (`nameserver.reports`), for those who make it and those who ask.

Ages and times are in seconds.
"""

from __future__ import annotations

import msgspec

from podplane.model.answers import ApiStatus, CacheStatus, TaskStatus


class UpstreamStatus(msgspec.Struct, frozen=True):
    """A server that questions for names below `zone` are passed on to (`.`: all that have no zone of their own). `age`: so long it is up,
    or is not; `error` is why it gave no answer the last time that it did not; `round_trip` is None before it answered."""

    zone: str
    server: str
    is_up: bool
    is_loop: bool
    age: float
    error: str
    round_trip: float | None
    asked: int
    failed: int


class MemoryStatus(msgspec.Struct, frozen=True):
    """What is kept: responses that were made of the cluster's objects, and answers of other servers; how often these were looked for and
    found, and how often one was given that was too old."""

    responses: int
    response_bytes: int
    answers: int
    answer_bytes: int
    looked_for: int
    found: int
    stale: int


class ConfigStatus(msgspec.Struct, frozen=True):
    """The configuration: the ConfigMap that it is read from, and whether that exists (the defaults count while it does not). With an
    `error` in it another one counts, `instead` (a sentence). `age`: so long ago it came to count."""

    config_map: str
    exists: bool
    error: str
    age: float
    instead: str = ""


class NameServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `missing` names what it waits for before it answers questions; empty when it is ready. `answers_a_second`: over the last
    ten seconds. `zones` are those that the server answers for itself. `heard_age`: so long ago the API said last how things are, by an
    event, or by the bookmark that each watch brings about once a minute, of the watch that is longest without one; None before a list."""

    node: str
    pid: int
    age: float
    restarts: int
    missing: list[str]
    answers: int
    answers_a_second: float
    config: ConfigStatus
    zones: list[str]
    upstreams: list[UpstreamStatus]
    memory: MemoryStatus
    tasks: list[TaskStatus]
    caches: list[CacheStatus]
    heard_age: float | None
    api: ApiStatus | None


class RecordText(msgspec.Struct, frozen=True):
    """A record as zone files have it (RFC 1035, section 5)."""

    name: str
    type: str
    ttl: int
    data: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What one question is answered, and why: `source` names who or what object decided, `why` says in a sentence what is missing when
    there are no records. `pod` is `namespace/name` of who asks, "" when no pod has its address."""

    name: str
    type: str
    client: str
    pod: str
    rcode: str
    source: str
    records: list[RecordText]
    authority: list[RecordText]
    why: str


class QueryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A question of the query log. `number` counts the lines of the process; `time` is a Unix time; `pod` is `namespace/name`, or ""."""

    number: int
    time: float
    node: str
    client: str
    pod: str
    name: str
    type: str
    rcode: str
    source: str
    microseconds: int


class QueryLines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one node, of all up to `number`; and what is logged: `pods` and `names` of the configuration."""

    number: int
    pods: list[str]
    names: list[str]
    lines: list[QueryLine]
