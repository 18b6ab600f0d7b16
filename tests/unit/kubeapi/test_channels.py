"""The Status that ends an exec: as kubectl writes and reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi import channels as ch

MESSAGES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.integers(0, 2**31), MESSAGES)
def test_a_code_and_a_message_come_back(code: int, message: str) -> None:
    assert ch.exit_code(ch.outcome_of(code, message)) == (code, message)


@given(st.integers(0, 2**31))
def test_without_a_message_there_is_none(code: int) -> None:
    assert ch.exit_code(ch.outcome_of(code)) == (code, "")


def test_the_status_of_an_exit_code_is_kubernetes_own() -> None:
    assert json.loads(ch.outcome_of(3)) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code: exit status 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
    success = json.loads(ch.outcome_of(0))
    assert (success["kind"], success["status"]) == ("Status", "Success")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"status": "Success", "metadata": {}}, (0, "")),
        ({"status": "Failure", "message": "boom", "reason": "InternalError", "code": 500}, (1, "boom")),
        ({"status": "Failure", "message": "x", "details": {"causes": [{"reason": "ExitCode", "message": "many"}]}}, (1, "x")),
        ({"status": "Failure", "message": "x", "details": {}}, (1, "x")),
        (
            {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "Other", "message": "4"}]}},
            (1, ""),
        ),
        ({"status": "Failure", "message": "x", "details": {"causes": [{"reason": "ExitCode", "message": "²"}]}}, (1, "x")),
    ],
)
def test_statuses_of_other_servers(status: dict[str, object], expected: tuple[int, str]) -> None:
    assert ch.exit_code(json.dumps(status).encode()) == expected


def test_channel_numbers_are_those_of_the_protocol() -> None:
    assert ch.PROTOCOL == "v5.channel.k8s.io"
    assert (ch.STDIN, ch.STDOUT, ch.STDERR, ch.ERROR, ch.RESIZE, ch.CLOSE) == (0, 1, 2, 3, 4, 255)
