"""`podplane publish`: what it says when the host's port is not available."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from podplane.cli import publish
from podplane.lab.errors import LabError
from podplane.model.config import NOT_PUBLISHED, PUBLISH, PUBLISHED

Object = dict[str, Any]


class Lab:
    """The API of a lab with one Service, whose publisher answers `problem` to each wish, or does it."""

    def __init__(self, problem: str = "") -> None:
        spec = {"clusterIP": "10.96.0.5", "ports": [{"port": 80}, {"port": 81}]}
        self.service: Object = {"metadata": {"namespace": "default", "name": "web", "annotations": {}}, "spec": spec}
        self.problem = problem

    def get(self, resource: str, namespace: str, name: str) -> Object:
        return self.service

    def objects(self, resource: str, namespace: str = "") -> list[Object]:
        return [self.service]

    def patch(self, resource: str, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        annotations, text = self.service["metadata"]["annotations"], body["metadata"]["annotations"][PUBLISH] or ""
        annotations[PUBLISH] = text
        annotations[PUBLISHED] = f"{text}{NOT_PUBLISHED}{self.problem}" if text and self.problem else text

    def poll(
        self, resource: str, namespace: str, done: Callable[[list[Object]], bool], seconds: float
    ) -> Iterator[list[Object]]:
        yield [self.service]

    @property
    def wish(self) -> str:
        text: str = self.service["metadata"]["annotations"].get(PUBLISH, "")
        return text


def test_a_low_port_comes_with_another_one_to_try() -> None:
    lab = Lab("port 80 of the host is not available: Permission denied")
    with pytest.raises(LabError) as refused:
        publish._change(lab, "default", "svc/web:80", stop=False)
    said = str(refused.value)
    assert said.startswith("svc/web:80: port 80 of the host is not available: Permission denied (ports below ")
    assert said.endswith(
        " are not for a lab, which has no rights in the host's network, whoever starts it: write 8080:svc/web:80)"
    )
    assert lab.wish == "", "the wish is taken back"


def test_the_answer_to_another_wish_is_none() -> None:
    lab = Lab()
    lab.service["metadata"]["annotations"][PUBLISHED] = f"9:80{NOT_PUBLISHED}it is not available"
    assert publish._problem(lab, lab.service, "90:80") == "the lab does not answer"
    assert publish._problem(lab, lab.service, "9:80") == "it is not available"


def test_a_port_that_somebody_has_comes_without() -> None:
    with pytest.raises(LabError, match=r"Address already in use$"):
        publish._change(Lab("port 80 of the host is not available: Address already in use"), "default", "web:80", stop=False)


@pytest.mark.parametrize(("wish", "left"), [("8082:svc/web", "8083:81"), ("8083:svc/web:80", "8082:80")])
def test_the_hosts_port_says_what_is_to_stop(wish: str, left: str) -> None:
    lab = Lab()
    for one in ("8082:svc/web:80", "8083:services/web:81"):
        publish._change(lab, "default", one, stop=False)
    publish._change(lab, "default", wish, stop=True)
    assert lab.wish == left


def test_what_is_not_published_can_not_stop() -> None:
    with pytest.raises(LabError, match="default/web is not published at port 8082"):
        publish._change(Lab(), "default", "8082:web", stop=True)
