"""What a user of kubectl does, with an unmodified kubectl: no warning, no special option, columns as they are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Kubectl, Podplane

pytestmark = pytest.mark.e2e

APP = """
apiVersion: v1
kind: Service
metadata: {name: app, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app, labels: {app: web}}
data: {colour: blue, size: "3"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: podplane/echo, ports: [{containerPort: 8080}], env: [{name: A, value: "1"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: app, labels: {app: web}}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8080, protocol: TCP}]}]}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec: {containers: [{name: main, image: podplane/echo}]}
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: routers.net.example.org}
spec:
  group: net.example.org
  scope: Namespaced
  names: {plural: routers, kind: Router, shortNames: [rt]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.ports, statusReplicasPath: .status.ports}}
    additionalPrinterColumns: [{name: Asn, type: integer, jsonPath: .spec.asn}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [asn]
            properties:
              asn: {type: integer, minimum: 1, description: The number of the autonomous system.}
              ports: {type: integer, default: 1}
          status: {type: object, properties: {ports: {type: integer}}}
"""


@pytest.fixture
def app(kubectl: Kubectl) -> str:
    """A Service, a ConfigMap, a Deployment and a NetworkPolicy."""
    kubectl("apply", "-f", "-", stdin=APP)
    return "app"


@pytest.fixture(autouse=True)
def swept(kubectl: Kubectl) -> object:
    """Nothing is left in the lab but its own pods."""
    yield
    kubectl("delete", "deployments,services,configmaps,networkpolicies,pods,secrets", "-l", "app", "--now", "--wait=false")


def columns(text: str) -> list[str]:
    """The headings of a table."""
    return re.split(r" {2,}", text.splitlines()[0].strip())


def test_nodes_and_pods_with_the_columns_that_are_known(kubectl: Kubectl) -> None:
    nodes = kubectl("get", "nodes", "-o", "wide")
    assert columns(nodes) == [
        *("NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION"),
        "CONTAINER-RUNTIME",
    ]
    assert re.search(r"^node2 +Ready +<none> .* 192\.168\.1\.11 ", nodes, re.MULTILINE)
    pods = kubectl("get", "pods", "-A", "-o", "wide")
    assert columns(pods) == [
        *("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES")
    ]
    assert re.search(r"^default +echo-node1-1 +1/1 +Running +0 .* 10\.244\.1\.2 +node1 ", pods, re.MULTILINE)
    assert kubectl("get", "svc").splitlines()[1].split()[:3] == ["kubernetes", "ClusterIP", "10.96.0.1"]


def test_api_resources_explain_and_version(kubectl: Kubectl) -> None:
    rows = {line.split()[0] for line in kubectl("api-resources").splitlines()}
    assert {
        "pods",
        "services",
        "endpointslices",
        "deployments",
        "networkpolicies",
        "leases",
        "clusterroles",
        "servicecidrs",
    } <= rows
    assert "sessionAffinity" in kubectl("explain", "service.spec")
    assert "<string>" in kubectl("explain", "pod.spec.nodeName")
    assert "networking.k8s.io/v1" in kubectl("api-versions")
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["minor"]
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert "admin" in kubectl("auth", "whoami")


def test_apply_and_apply_again(kubectl: Kubectl, app: str) -> None:
    again = kubectl("apply", "-f", "-", stdin=APP)
    assert again.count("unchanged") == 4
    assert kubectl("diff", "-f", "-", stdin=APP) == ""
    changed = APP.replace("blue", "red").replace('size: "3"', "").replace('value: "1"', 'value: "2"')
    assert "-  colour: blue" in kubectl("diff", "-f", "-", stdin=changed, code=1)
    assert kubectl("apply", "-f", "-", stdin=changed).count("configured") == 2
    assert json.loads(kubectl("get", "cm", app, "-o", "json"))["data"] == {"colour": "red"}
    assert kubectl("get", "deploy", app, "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}") == "2"
    assert columns(kubectl("get", "all", "-l", "app=web"))[0] == "NAME"


def test_label_annotate_patch_scale_and_set(kubectl: Kubectl, app: str) -> None:
    kubectl("label", "svc", app, "tier=front")
    kubectl("annotate", "svc", app, "example.org/by=hand")
    kubectl("label", "svc", app, "tier-")
    found = json.loads(kubectl("get", "svc", app, "-o", "json"))["metadata"]
    assert (found["labels"], found["annotations"]["example.org/by"]) == ({"app": "web"}, "hand")
    kubectl("patch", "svc", app, "-p", '{"spec": {"ports": [{"port": 443, "name": "https"}]}}')
    assert kubectl("get", "svc", app, "-o", "jsonpath={.spec.ports[*].port}") == "443 80"
    kubectl("patch", "svc", app, "--type", "json", "-p", '[{"op": "remove", "path": "/spec/ports/0"}]')
    kubectl("patch", "svc", app, "--type", "merge", "-p", '{"spec": {"sessionAffinity": "ClientIP"}}')
    assert kubectl("get", "svc", app, "-o", "jsonpath={.spec.ports[*].port} {.spec.sessionAffinity}") == "80 ClientIP"
    kubectl("scale", "deploy", app, "--replicas", "5")
    kubectl("set", "image", f"deploy/{app}", "main=podplane/echo:2")
    assert kubectl("get", "deploy", app, "-o", "jsonpath={.spec.replicas} {..image}") == "5 podplane/echo:2"


def test_create_replace_and_edit(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "configmap", "made", "--from-literal=a=1")
    kubectl("label", "configmap", "made", "app=made")
    kubectl("create", "secret", "generic", "made", "--from-literal=key=value")
    kubectl("label", "secret", "made", "app=made")
    found = yaml.safe_load(kubectl("get", "cm", "made", "-o", "yaml"))
    found["data"]["a"] = "2"
    kubectl("replace", "-f", "-", stdin=yaml.safe_dump(found))
    assert "Conflict" in kubectl("replace", "-f", "-", stdin=yaml.safe_dump(found), code=1)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/a: "2"/a: "3"/\' "$1"\n')
    editor.chmod(0o755)
    kubectl.environment["KUBE_EDITOR"] = str(editor)
    assert "edited" in kubectl("edit", "cm", "made")
    assert kubectl("get", "cm", "made", "-o", "jsonpath={.data.a}") == "3"


def test_a_pod_comes_and_goes_before_the_eyes_of_a_watch(kubectl: Kubectl) -> None:
    with kubectl.start("get", "pods", "-l", "app=seen", "--watch", "-o", "name", "--request-timeout=20s") as watch:
        try:
            kubectl("apply", "-f", "-", stdin=POD % ("seen", "seen"))
            kubectl("wait", "--for=condition=Ready", "pod/seen", "--timeout=20s")
            assert watch.stdout
            assert watch.stdout.readline().strip() == "pod/seen"
        finally:
            watch.kill()
    assert "10.244." in kubectl("describe", "pod", "seen")
    assert kubectl("exec", "seen", "--", "echo", "hello") == "hello\n"
    assert kubectl("delete", "pod", "seen", "--now").startswith('pod "seen" deleted')
    assert 'pods "seen" not found' in kubectl("get", "pod", "seen", code=1)


def test_dry_runs_change_nothing(kubectl: Kubectl) -> None:
    assert "server dry run" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=APP)
    assert "NotFound" in kubectl("get", "cm", "app", code=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("port: 80,", "port: 0,"), "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535"),
        (("name: app,", "name: App,"), "metadata.name: Invalid value"),
        (("replicas: 2", "replicaz: 2"), 'unknown field "spec.replicaz"'),
        (("replicas: 2", "replicas: two"), "spec.replicas: must be an integer"),
        (("matchLabels: {app: web}}\n  template", "matchLabels: {app: db}}\n  template"), "`selector` does not match template"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(kubectl: Kubectl, change: tuple[str, str], words: str) -> None:
    assert change[0] in APP
    assert words in kubectl("create", "-f", "-", stdin=APP.replace(*change), code=1)


def test_server_side_apply_says_that_it_is_not_served(kubectl: Kubectl) -> None:
    assert "server-side apply is not served yet" in kubectl("apply", "--server-side", "-f", "-", stdin=APP, code=1)


def test_custom_resources(kubectl: Kubectl) -> None:
    try:
        kubectl("apply", "-f", "-", stdin=CRD)
        kubectl("wait", "--for=condition=Established", "crd/routers.net.example.org", "--timeout=20s")
        router = "apiVersion: net.example.org/v1\nkind: Router\nmetadata: {name: r1}\nspec: {asn: %s}\n"
        kubectl("apply", "-f", "-", stdin=router % "64512")
        lines = kubectl("get", "rt").splitlines()
        assert (lines[0].split(), lines[1].split()) == (["NAME", "ASN"], ["r1", "64512"])
        assert "spec.asn" in kubectl("create", "-f", "-", stdin=(router % "0").replace("r1", "r2"), code=1)
        assert "autonomous system" in kubectl("explain", "router.spec.asn")
        kubectl("scale", "rt", "r1", "--replicas=4")
        assert kubectl("get", "rt", "r1", "-o", "jsonpath={.spec.ports}") == "4"
    finally:
        kubectl("delete", "crd", "routers.net.example.org")
    assert "could not find the requested resource" in kubectl("get", "rt", code=1)


def test_a_namespace_goes_with_all_that_is_in_it(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "team")
    kubectl("apply", "-n", "team", "-f", "-", stdin=APP)
    kubectl("delete", "namespace", "team")
    assert kubectl("get", "svc,cm,deploy", "-A", "-l", "app=web", "-o", "name") == ""


def test_tokens_of_service_accounts(kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "robot")
    token = kubectl("create", "token", "robot").strip()
    who = kubectl("auth", "whoami", f"--token={token}", "-o", "jsonpath={.status.userInfo.username}")
    kubectl("delete", "serviceaccount", "robot")
    assert who == "system:serviceaccount:default:robot"
    assert "Unauthorized" in kubectl("get", "pods", f"--token={token}", code=1)


def test_the_way_in_is_merged_and_taken_out_again(podplane: Podplane, tmp_path: Path) -> None:
    own = tmp_path / "config"
    podplane.environment["KUBECONFIG"] = str(own)
    assert "not running" in podplane("kubeconfig", code=2).stderr
    podplane("up", "--nodes", "1", "--sandbox-only")
    path = Path(podplane("kubeconfig").stdout.strip())
    assert (path, path.stat().st_mode & 0o777) == (podplane.folder.kubeconfig, 0o600)
    own.write_text(yaml.safe_dump({"users": [{"name": "other", "user": {"token": "x"}}], "current-context": "other"}))
    podplane("kubeconfig", "--merge")
    found = yaml.safe_load(own.read_text())
    assert found["current-context"] == f"podplane-{podplane.name}"
    assert [user["name"] for user in found["users"]] == ["other", f"podplane-{podplane.name}"]
    before = path.read_bytes()
    podplane.environment["KUBECONFIG"] = str(path)
    assert "`unset KUBECONFIG`" in podplane("kubeconfig", "--merge", code=2).stderr
    assert path.read_bytes() == before
    podplane.environment["KUBECONFIG"] = f"{tmp_path / 'none'}:{own}"
    podplane("down", "--purge")
    assert [user["name"] for user in yaml.safe_load(own.read_text())["users"]] == ["other"]


def test_lists_are_created_and_their_items_checked(kubectl: Kubectl) -> None:
    def items(**second: object) -> str:
        maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in ("l1", "l2")]
        maps[1] |= second  # type: ignore[arg-type]  # fields of an object
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": maps})

    assert 'unknown field "datta"' in kubectl("create", "-f", "-", stdin=items(datta={}), code=1)
    kubectl("delete", "configmap", "l1")
    kubectl("create", "-f", "-", stdin=items())
    found = kubectl("get", "configmaps", "l1", "l2", "-o", "json")
    kubectl("replace", "-f", "-", stdin=found)
    kubectl("delete", "-f", "-", stdin=found)
