"""The API's verbs as Kubernetes documents them, through `handle`."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver.admission import Admission
from podplane.apiserver.identity import Tokens, admin
from podplane.apiserver.patches import merge
from podplane.apiserver.paths import parse
from podplane.apiserver.registry import Registry
from podplane.apiserver.server import ApiServer
from podplane.apiserver.store import Store
from podplane.kubeapi.messages import MERGE_PATCH, Request, Response, Stream

Object = dict[str, Any]
CONTAINER = {"name": "main", "image": "podplane/echo"}
POD = {"spec": {"containers": [CONTAINER]}}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


class Api:
    """An API server in memory with short words for its verbs."""

    def __init__(self, path: Path | str = ":memory:", cidrs: tuple[str, ...] = ("10.244.0.0/16", "fd00:10:244::/48")) -> None:
        self.store = Store(path)
        networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
        self.tokens = Tokens({"secret": admin()}, b"k" * 32, self.store)
        self.server = ApiServer(self.store, Admission(self.store, networks), self.tokens)
        self.server.bootstrap()

    async def answer(self, method: str, path: str, body: Any = None, token: str = "secret", **query: str) -> Any:
        content_type = MERGE_PATCH if method == "PATCH" else "application/json"
        headers = {"authorization": f"Bearer {token}", "content-type": content_type}
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        return await self.server.handle(Request(method, path, {k: [v] for k, v in query.items()}, headers, data))

    async def __call__(self, method: str, path: str, body: Any = None, code: int | None = None, **query: str) -> Object:
        answer = await self.answer(method, path, body, **query)
        assert isinstance(answer, Response)
        found: Object = json.loads(answer.body)
        assert answer.status == (code or (201 if method == "POST" else 200)), found
        return found

    async def refused(self, reason: str, method: str, path: str, body: Any = None, **query: str) -> str:
        answer = await self.answer(method, path, body, **query)
        status = json.loads(answer.body)
        assert (status["kind"], status["status"], status["reason"]) == ("Status", "Failure", reason)
        assert status["code"] == answer.status
        return str(status["message"])

    async def node(self, name: str, **spec: Any) -> Object:
        return await self("POST", "/api/v1/nodes", {"metadata": {"name": name}, "spec": spec, "status": READY})

    async def pod(self, name: str, namespace: str = "default", labels: dict[str, str] | None = None, **spec: Any) -> Object:
        body = {"metadata": {"name": name, "labels": labels or {}}, "spec": {**POD["spec"], **spec}}
        return await self("POST", f"/api/v1/namespaces/{namespace}/pods", body)

    async def names(self, path: str, **query: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await self("GET", path, **query))["items"]]


PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def api() -> Api:
    return Api()


async def test_tokens_are_wanted_but_not_for_health(api: Api) -> None:
    for token in ("", "wrong"):
        answer = await api.answer("GET", "/api/v1/pods", token=token)
        assert (answer.status, json.loads(answer.body)["reason"]) == (401, "Unauthorized")
    for path in ("/livez", "/readyz", "/version"):
        assert (await api.answer("GET", path, token="")).status == 200


async def test_create_get_list_delete(api: Api) -> None:
    made = await api.node("n1")
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert await api("GET", "/api/v1/nodes/n1") == made
    assert await api.names("/api/v1/nodes") == ["n1"]
    await api("DELETE", "/api/v1/nodes/n1")
    assert await api.names("/api/v1/nodes") == []
    assert await api.refused("NotFound", "GET", "/api/v1/nodes/n1") == 'nodes "n1" not found'


async def test_refusals_have_the_reason_clients_know(api: Api) -> None:
    await api.node("n1")
    await api.refused("AlreadyExists", "POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    await api.refused("BadRequest", "POST", "/api/v1/nodes", b"{broken")
    await api.refused("BadRequest", "POST", "/api/v1/nodes", [1])
    await api.refused("BadRequest", "POST", "/api/v1/nodes", {"metadata": 3})
    await api.refused("BadRequest", "POST", "/api/v1/nodes", {"kind": "Pod", "metadata": {"name": "x"}})
    await api.refused("Invalid", "POST", "/api/v1/nodes", {"metadata": {"name": "Not A Name"}})
    await api.refused("Invalid", "POST", PODS, {"metadata": {"name": "x"}, "spec": {"containers": []}})
    await api.refused("NotFound", "GET", "/api/v1/unicorns")
    await api.refused("NotFound", "GET", "/apis/apps/v2/deployments")
    quotas = "/api/v1/namespaces/default/resourcequotas"
    assert await api.refused("NotFound", "POST", quotas, {}) == f"the server could not find the requested resource: {quotas}"
    await api.refused("MethodNotAllowed", "PUT", "/api/v1/nodes")
    await api.refused("RequestEntityTooLarge", "POST", "/api/v1/nodes", b" " * 4_000_000)
    await api.refused("NotFound", "POST", "/api/v1/namespaces/nowhere/pods", {"metadata": {"name": "x"}, **POD})
    wrong = Request("PATCH", "/api/v1/nodes/n1", {}, {"authorization": "Bearer secret", "content-type": "text/plain"}, b"{}")
    answer = await api.server.handle(wrong)
    assert isinstance(answer, Response)
    assert answer.status == 415


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"containers": [CONTAINER, CONTAINER]}, "Invalid", "spec.containers[1].name"),
        ({"containers": [{**CONTAINER, "name": "A_b"}]}, "Invalid", "spec.containers[0].name"),
        ({"containers": [{"name": "a"}]}, "Invalid", "spec.containers[0].image"),
        ({"containers": [{**CONTAINER, "command": "not a list"}]}, "BadRequest", "spec.containers[0].command"),
        ({"containers": [CONTAINER], "restartPolicy": "Sometimes"}, "Invalid", "spec.restartPolicy"),
        ({"containers": ["a"]}, "BadRequest", "spec.containers[0]"),
        ("nothing", "BadRequest", "spec"),
    ],
)
async def test_pods_that_make_no_sense_are_refused_with_the_field(api: Api, spec: Any, reason: str, field: str) -> None:
    message = await api.refused(reason, "POST", PODS, {"metadata": {"name": "x"}, "spec": spec})
    assert f"{field}: " in message


async def test_generated_names(api: Api) -> None:
    body = {"metadata": {"generateName": "web-"}, **POD}
    names = {(await api("POST", PODS, body))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(re.fullmatch("web-[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in names)


async def test_a_generated_name_is_never_too_long(api: Api) -> None:
    made = await api("POST", PODS, {"metadata": {"generateName": "long-" * 20}, **POD})
    assert re.fullmatch("(long-){11}lon.{5}", made["metadata"]["name"])


async def test_updates_conflict_and_no_change_is_no_version(api: Api) -> None:
    made = await api.node("n1")
    assert await api("PUT", "/api/v1/nodes/n1", made) == made
    changed = await api("PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": {"a": "b"}}})
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    await api.refused("Conflict", "PUT", "/api/v1/nodes/n1", made)
    await api.refused("Conflict", "PATCH", "/api/v1/nodes/n1", {"metadata": {"uid": "another"}})
    assert await api("GET", "/api/v1/nodes/n1") == changed


async def test_what_the_server_sets_nobody_else_changes(api: Api) -> None:
    made = await api.node("n1")
    forged = {"metadata": {"creationTimestamp": "1970-01-01T00:00:00Z", "deletionTimestamp": "1970-01-01T00:00:00Z"}}
    assert await api("PATCH", "/api/v1/nodes/n1", forged) == made
    await api.refused("BadRequest", "PATCH", "/api/v1/nodes/n1", {"metadata": {"name": "n2"}})
    await api.refused("Invalid", "PATCH", "/api/v1/nodes/n1", {"spec": {"podCIDRs": ["10.1.0.0/24"]}})


async def test_status_and_spec_are_written_apart(api: Api) -> None:
    await api.node("n1")
    made = await api.pod("web")
    path = f"{PODS}/web"
    after = await api("PATCH", f"{path}/status", {"spec": {"nodeName": "n9"}, "status": {"phase": "Running"}})
    assert (after["spec"], after["status"]["phase"]) == (made["spec"], "Running")
    after = await api("PATCH", path, {"status": {"phase": "Failed"}, "metadata": {"labels": {"x": "y"}}})
    assert (after["status"]["phase"], after["metadata"]["labels"]) == ("Running", {"x": "y"})


async def test_node_blocks_are_given_in_order_and_given_back_last(api: Api) -> None:
    blocks = [(await api.node(f"n{i}"))["spec"]["podCIDRs"] for i in range(1, 4)]
    assert blocks[0] == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    assert blocks[2] == ["10.244.3.0/24", "fd00:10:244:3::/64"]
    await api("DELETE", "/api/v1/nodes/n2")
    assert (await api.node("n4"))["spec"]["podCIDR"] == "10.244.4.0/24"


async def test_nodes_beyond_the_cluster_cidr_are_refused() -> None:
    api = Api(cidrs=("10.244.0.0/23",))
    await api.node("n1")
    await api.node("n2")
    assert "larger cluster CIDR" in await api.refused("Forbidden", "POST", "/api/v1/nodes", {"metadata": {"name": "n3"}})


async def test_a_pod_is_deleted_with_its_grace(api: Api) -> None:
    await api.node("n1")
    made = await api.pod("web", terminationGracePeriodSeconds=7, nodeName="n1")
    marked = await api("DELETE", f"{PODS}/web")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    assert (await api("DELETE", f"{PODS}/web", {"gracePeriodSeconds": 60}))["metadata"] == marked["metadata"]
    shorter = await api("DELETE", f"{PODS}/web", {"gracePeriodSeconds": 1})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 1
    await api.refused("Conflict", "DELETE", f"{PODS}/web", {"preconditions": {"uid": "another"}, "gracePeriodSeconds": 0})
    await api("DELETE", f"{PODS}/web", {"preconditions": {"uid": made["metadata"]["uid"]}, "gracePeriodSeconds": 0})
    await api.refused("NotFound", "GET", f"{PODS}/web")


async def test_a_namespace_goes_when_its_last_pod_is_gone(api: Api) -> None:
    await api.node("n1")
    await api("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await api.pod("web", "team", nodeName="n1")
    assert (await api("DELETE", "/api/v1/namespaces/team"))["status"]["phase"] == "Terminating"
    await api.refused("Forbidden", "POST", "/api/v1/namespaces/team/pods", {"metadata": {"name": "x"}, **POD})
    pod = await api("GET", "/api/v1/namespaces/team/pods/web")
    assert pod["metadata"]["deletionTimestamp"]
    await api("DELETE", "/api/v1/namespaces/team/pods/web", {"gracePeriodSeconds": 0})
    await api.refused("NotFound", "GET", "/api/v1/namespaces/team")
    await api.refused("Forbidden", "DELETE", "/api/v1/namespaces/default")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=web", ["a", "b"]),
        ("app==web,tier!=back", ["a"]),
        ("tier in (front, back)", ["a", "b"]),
        ("tier notin (back)", ["a", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
    ],
)
async def test_label_selectors(api: Api, selector: str, expected: list[str]) -> None:
    await api.pod("a", labels={"app": "web", "tier": "front"})
    await api.pod("b", labels={"app": "web", "tier": "back"})
    await api.pod("c", labels={"app": "db"})
    assert await api.names("/api/v1/pods", labelSelector=selector) == expected


async def test_field_selectors(api: Api) -> None:
    await api.node("n1")
    await api.pod("a", nodeName="n1")
    await api.pod("b", nodeName="n1")
    assert await api.names("/api/v1/pods", fieldSelector="metadata.name=a") == ["a"]
    assert await api.names("/api/v1/pods", fieldSelector="spec.nodeName=n1,metadata.name!=a") == ["b"]
    assert "field label not supported: spec.color" in await api.refused(
        "BadRequest", "GET", "/api/v1/pods", fieldSelector="spec.color=red"
    )


async def take(stream: Stream, count: int) -> list[tuple[str, str]]:
    """(type, name) of the next events."""
    events: list[tuple[str, str]] = []
    async for chunk in stream.chunks:
        for line in chunk.splitlines():
            event = json.loads(line)
            events.append((event["type"], event["object"]["metadata"].get("name", "")))
        if len(events) >= count:
            return events
    return events


async def test_a_watch_begins_where_the_list_ended(api: Api) -> None:
    await api.pod("a")
    version = (await api("GET", "/api/v1/pods"))["metadata"]["resourceVersion"]
    await api.pod("b")
    await api("PATCH", f"{PODS}/b", {"metadata": {"labels": {"x": "y"}}})
    await api("DELETE", f"{PODS}/a")
    await api.node("n1")
    stream = await api.answer("GET", "/api/v1/pods", watch="true", resourceVersion=version)
    assert await take(stream, 3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]
    later = await api.answer("GET", PODS, watch="true")
    assert await take(later, 1) == [("ADDED", "b")]


async def test_a_watch_with_a_selector_sees_objects_enter_and_leave(api: Api) -> None:
    made = await api.pod("a")
    stream = await api.answer("GET", PODS, watch="1", labelSelector="on", resourceVersion=made["metadata"]["resourceVersion"])
    for labels in ({"on": "1"}, {"on": "2"}, {"on": None}, {"other": "1"}, {"on": "3"}):
        await api("PATCH", f"{PODS}/a", {"metadata": {"labels": labels}})
    await api("DELETE", f"{PODS}/a")
    kinds = [kind for kind, _ in await take(stream, 5)]
    assert kinds == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]


async def test_a_watch_from_before_the_history_is_gone(tmp_path: Path) -> None:
    first = Api(tmp_path / "state.db")
    await first.node("n1")
    first.store.close()
    second = Api(tmp_path / "state.db")
    message = await second.refused("Expired", "GET", "/api/v1/nodes", watch="true", resourceVersion="1")
    assert "too old resource version" in message


async def test_a_watch_ends_after_its_time(api: Api) -> None:
    stream = await api.answer("GET", PODS, watch="true", resourceVersion=str(api.store.version), timeoutSeconds="0.05")
    assert await take(stream, 1) == []


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Api(tmp_path / "state.db")
    await first.node("n1")
    made = await first.pod("web")
    version = first.store.version
    first.store.close()
    second = Api(tmp_path / "state.db")
    assert second.store.version == version
    assert await second("GET", f"{PODS}/web") == made
    assert (await second.node("n2"))["spec"]["podCIDR"] == "10.244.2.0/24"


def test_writes_together_are_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    with pytest.raises(RuntimeError), store.transaction():
        store.put("nodes", ("", "n1"), {"metadata": {"name": "n1"}})
        raise RuntimeError
    assert Store(tmp_path / "state.db").all("nodes") == []


WRITER = """
import sys
from podplane.apiserver.store import Store
store = Store(sys.argv[1])
for i in range(100000):
    store.put("pods", ("default", f"p{i}"), {"metadata": {"name": f"p{i}"}})
    sys.stdout.write(f"p{i}\\n"); sys.stdout.flush()
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    seen = [writer.stdout.readline() for _ in range(200)]
    writer.kill()
    seen += writer.stdout.readlines()
    writer.wait()
    acknowledged = {line.strip() for line in seen if line.endswith("\n")}
    found = {stored.object["metadata"]["name"] for stored in Store(path).all("pods")}
    assert len(acknowledged) >= 200
    assert acknowledged <= found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/nodes", ("nodes", "", "", "")),
        ("/api/v1/namespaces/a/pods/b/exec", ("pods", "a", "b", "exec")),
        ("/api/v1/namespaces/a", ("namespaces", "", "a", "")),
        ("/api/v1/namespaces/pods", ("namespaces", "", "pods", "")),
        ("/api/v1/pods", ("pods", "", "", "")),
    ],
)
def test_paths(path: str, expected: tuple[str, str, str, str]) -> None:
    target = parse(path, Registry(Store(":memory:")))
    assert (target.resource.plural, target.namespace, target.name, target.subresource) == expected


def test_merge_patch_as_in_rfc_7386() -> None:
    target = {"a": "b", "c": {"d": "e", "f": "g"}}
    assert merge(target, {"a": "z", "c": {"f": None}}) == {"a": "z", "c": {"d": "e"}}
    assert merge({"a": [{"b": "c"}]}, {"a": [1]}) == {"a": [1]}
    assert merge({"e": None}, {"a": 1}) == {"e": None, "a": 1}
    assert merge({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}
    assert target == {"a": "b", "c": {"d": "e", "f": "g"}}
