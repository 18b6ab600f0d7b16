"""The class of an Ingress that says none, and what an Ingress may say of classes and Services."""

from __future__ import annotations

import datetime

import pytest

from tests.unit.apiserver.test_server import Api, Object

CLASSES = "/apis/networking.k8s.io/v1/ingressclasses"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
DEFAULT = {"ingressclass.kubernetes.io/is-default-class": "true"}
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}


async def make_class(api: Api, name: str, annotations: Object) -> None:
    body = {"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": "example.org/x"}}
    await api("POST", CLASSES, body)


def ingress(name: str = "i", annotations: Object | None = None, **spec: object) -> Object:
    return {"metadata": {"name": name, "annotations": annotations or {}}, "spec": {"defaultBackend": BACKEND, **spec}}


async def class_of(api: Api, body: Object) -> str | None:
    found: str | None = (await api("POST", INGRESSES, body))["spec"].get("ingressClassName")
    return found


async def test_the_default_class_is_chosen() -> None:
    api = Api()
    await make_class(api, "other", {"ingressclass.kubernetes.io/is-default-class": "false"})
    assert await class_of(api, ingress("none")) is None
    await make_class(api, "main", DEFAULT)
    assert await class_of(api, ingress("implicit")) == "main"
    assert await class_of(api, ingress("explicit", ingressClassName="other")) == "other"
    assert await class_of(api, ingress("older", {"kubernetes.io/ingress.class": "other"})) is None
    await api("PATCH", f"{INGRESSES}/implicit", {"spec": {"ingressClassName": None}})
    assert "ingressClassName" not in (await api("GET", f"{INGRESSES}/implicit"))["spec"], "only a new one gets it"


async def test_of_several_the_newest_and_of_those_the_first_by_name() -> None:
    api = Api()
    writer = api.server._writer
    now = writer._now()
    for age, names in ((0, ("z",)), (5, ("c", "b")), (3, ("a",))):
        writer._now = lambda age=age: now + datetime.timedelta(seconds=age)
        for name in names:
            await make_class(api, name, DEFAULT)
    assert await class_of(api, ingress()) == "b"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (ingress(ingressClassName="Not A Name"), "spec.ingressClassName"),
        (ingress(annotations={"kubernetes.io/ingress.class": "a"}, ingressClassName="b"), "annotations.kubernetes.io/ingress"),
        (ingress(defaultBackend={"service": {"port": {"number": 80}}}), "spec.defaultBackend.service.name"),
        (ingress(defaultBackend={"service": {"name": "a.b", "port": {"number": 80}}}), "spec.defaultBackend.service.name"),
    ],
)
async def test_what_makes_no_sense_is_refused(body: Object, field: str) -> None:
    assert field in await Api().refused("Invalid", "POST", INGRESSES, body)


async def test_a_service_may_begin_with_a_digit() -> None:
    """Since 1.36 (RelaxedServiceNameValidation, KEP-5311): a name is an RFC 1123 label."""
    api, services = Api(), "/api/v1/namespaces/default/services"
    spec = {"ports": [{"port": 80}], "selector": {"a": "b"}}
    for name in ("1web", "9", "w" * 63, "3-tier"):
        assert (await api("POST", services, {"metadata": {"name": name}, "spec": spec}))["metadata"]["name"] == name
        backend = {"service": {"name": name, "port": {"number": 80}}}
        await api("POST", INGRESSES, ingress(f"of-{name}", defaultBackend=backend))
    for name in ("-web", "web-", "we.b", "Web", "w" * 64):
        await api.refused("Invalid", "POST", services, {"metadata": {"name": name}, "spec": spec})
