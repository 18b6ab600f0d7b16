"""Times and bytes: what Go's types read is read, and written as they write it."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import scalars
from tests.unit.apiserver.test_server import Api

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.999999999Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+01:30", "2026-01-02T01:34:05Z"),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:01Z", "0001-01-01T00:00:01Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_times(text: str, written: str | None) -> None:
    assert scalars.time(text) == written


@pytest.mark.parametrize(
    "text", ["", "2026-01-02", "20260102T030405Z", "2026-02-30T00:00:00Z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        scalars.time(text)


def test_a_micro_time_has_six_digits() -> None:
    assert scalars.time("2026-01-02T03:04:05.000000+01:00", micro=True) == "2026-01-02T02:04:05.000000Z"
    for text in ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123Z", "2026-01-02T03:04:05.1234567Z"):
        with pytest.raises(ValueError, match="six digits"):
            scalars.time(text, micro=True)


def test_times_beyond_four_digits_of_a_year_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a time"):
        scalars.time("0001-01-01T00:00:00+01:00")
    with pytest.raises(OverflowError):
        scalars.since_epoch(2**40, 0)


@given(st.datetimes(min_value=datetime.datetime(1, 1, 1, 0, 0, 1), timezones=st.just(datetime.UTC)))
def test_a_moment_is_read_as_it_was_written(moment: datetime.datetime) -> None:
    text = scalars.written(moment, micro=True)
    assert text is not None
    assert scalars.time(text, micro=True) == text
    assert datetime.datetime.fromisoformat(text) == moment
    since = moment - scalars.EPOCH
    seconds, rest = divmod(since, datetime.timedelta(seconds=1))
    assert scalars.since_epoch(seconds, rest.microseconds * 1000 + 999, micro=True) == text


def test_bytes() -> None:
    assert scalars.base64_text("aGVs\nbG8=\r\n") == "aGVsbG8="
    with pytest.raises(ValueError, match="not base64"):
        scalars.base64_text("a")


async def test_a_lease_without_six_digits_is_refused_and_one_with_them_stays() -> None:
    api = Api()
    lease = {"metadata": {"name": "x"}, "spec": {"renewTime": "2026-01-02T03:04:05Z"}}
    message = await api.refused("BadRequest", "POST", LEASES, lease)
    assert "spec.renewTime: '2026-01-02T03:04:05Z' is not a time (RFC 3339 with six digits of a second)" in message
    lease["spec"] = {"renewTime": "2026-01-02T03:04:05.000000Z"}
    assert (await api("POST", LEASES, lease))["spec"] == lease["spec"]


async def test_what_is_empty_is_left_out_and_what_is_always_written_is_there() -> None:
    api = Api()
    pod = {"metadata": {"name": "x", "labels": {}}, "spec": {"nodeName": "", "hostNetwork": False, "containers": []}}
    pod["spec"]["containers"] = [
        {"name": "main", "image": "i", "env": [], "resources": {"limits": {"cpu": "0.50"}}, "tty": False}
    ]
    made = await api("POST", "/api/v1/namespaces/default/pods", pod)
    assert not {"labels", "nodeName", "hostNetwork"} & {*made["metadata"], *made["spec"]}
    container = made["spec"]["containers"][0]
    assert (container["resources"]["limits"], container.keys() & {"env", "tty"}) == ({"cpu": "500m"}, set())
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]}}
    daemon_set = {"metadata": {"name": "x"}, "spec": spec}
    status = (await api("POST", "/apis/apps/v1/namespaces/default/daemonsets", daemon_set))["status"]
    assert status == {"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}
