"""`podplane backend`: of which lab it is told, after its own name or after `set`."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.cli import backend
from podplane.cli.backend import not_counted
from podplane.kubeapi.errors import NotFound
from podplane.lab.errors import LabError


class Asked(Exception):
    """A lab would be connected to: its name."""


@pytest.fixture(autouse=True)
def _nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(folder: Any) -> Any:
        raise Asked(folder.name)

    monkeypatch.setattr(backend, "connect", connect)
    monkeypatch.delenv("PODPLANE_LAB", raising=False)


def lab_of(words: str) -> str:
    with pytest.raises(Asked) as asked:
        backend.backend.main(words.split(), standalone_mode=False)
    return str(asked.value)


@pytest.mark.parametrize(
    ("words", "lab"),
    [
        ("", "lab"),
        ("--name h", "h"),
        ("set vxlan", "lab"),
        ("set --name h vxlan", "h"),
        ("set vxlan --name h", "h"),
        ("--name h set vxlan", "h"),
        ("--name h set --name h vxlan", "h"),
    ],
)
def test_the_lab_is_named_after_the_command_or_after_set(words: str, lab: str) -> None:
    assert lab_of(words) == lab


@pytest.mark.parametrize("words", ["--name h set vxlan", "set --name h vxlan"])
def test_an_option_counts_more_than_the_environment(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv("PODPLANE_LAB", "other")
    assert (lab_of(words), lab_of("set vxlan")) == ("h", "other")


def test_two_labs_are_refused() -> None:
    with pytest.raises(LabError, match="--name says h and g: leave one of them out"):
        backend.backend.main(["--name", "h", "set", "--name", "g", "vxlan"], standalone_mode=False)


def test_settings_that_do_not_count_are_told_in_one_line() -> None:
    data: dict[str, str] = {}

    class Client:
        def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
            if not data:
                raise NotFound(404, "NotFound", "")
            return {"data": data}

    assert not not_counted(Client())
    data["backend"] = "host-gw"
    assert not not_counted(Client())
    data["backend"] = "pigeon"
    said = not_counted(Client())
    assert said.startswith("The ConfigMap kube-system/podplane-network does not count") and "'pigeon'" in said
