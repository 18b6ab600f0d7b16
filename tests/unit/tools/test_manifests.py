"""The chart and deploy/podplane.yaml: that one is made of the other, and what it gives the agent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

import podplane
from podplane.cni import install
from podplane.dns import endpoints
from podplane.dns.node import SERVICE
from podplane.machine import capabilities, configuration, controllers_configuration, former, rbac
from podplane.model.config import AGENT_PORT, BESIDE_PORT, NAME_SERVER_PORT, STATUS_PORT, NetworkConfig
from podplane.routes import cluster_settings
from podplane.routes.table import NAMES
from podplane.services import pools
from tools import manifests

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on the PATH")
Object = dict[str, Any]
CONTROLLERS = rbac.CONTROLLERS.name


def objects(text: str) -> dict[tuple[str, str], Object]:
    """By kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


def pod_of(found: dict[tuple[str, str], Object]) -> Object:
    pod: Object = found["DaemonSet", "podplane-agent"]["spec"]["template"]["spec"]
    return pod


@pytest.fixture(scope="module")
def deployed() -> dict[tuple[str, str], Object]:
    return objects(manifests.DEPLOY.read_text())


def agent(deployed: dict[tuple[str, str], Object]) -> Object:
    (container,) = pod_of(deployed)["containers"]
    return dict(container)


@pytest.mark.parametrize("path", manifests.made(), ids=lambda path: path.name)
def test_what_the_chart_has_of_something_else_is_as_that_is_now(path: Path) -> None:
    assert path.read_text() == manifests.made()[path], "run python -m tools.manifests"


@pytest.mark.parametrize("path", manifests.MADE, ids=lambda path: path.name)
def test_what_is_deployed_is_made_of_this_chart(path: Path) -> None:
    assert re.findall(r"# Chart: sha256:(\w+)\n", path.read_text()) == [manifests.digest()], "run python -m tools.manifests"


@pytest.mark.parametrize("path", manifests.MADE, ids=lambda path: path.name)
def test_what_is_deployed_is_what_is_made_of_the_chart_now(path: Path) -> None:
    assert path.read_text() == manifests.deployed(path), "without helm that is about the rules of the agent alone"


def test_without_helm_only_the_rules_can_be_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(manifests, "rules", lambda *account: "kind: Other\n")
    former = manifests.DEPLOY.read_text()
    found = manifests.deployed(manifests.DEPLOY)
    assert "kind: Other\n---\n# Source" in found and former.endswith(found[found.index(manifests.RENDERED) :])
    monkeypatch.setattr(manifests, "digest", lambda: "0")
    with pytest.raises(LookupError, match="helm"):
        manifests.deployed(manifests.DEPLOY)


def test_who_uninstalls_has_what_the_agent_had_and_nothing_of_the_api(deployed: dict[tuple[str, str], Object]) -> None:
    (daemon_set,) = objects(manifests.UNINSTALL.read_text()).values()
    pod, agents = daemon_set["spec"]["template"]["spec"], pod_of(deployed)
    assert pod["automountServiceAccountToken"] is False and "serviceAccountName" not in pod
    assert pod["volumes"] == agents["volumes"]
    former, plugin = pod["initContainers"]
    assert former["args"] == ["agent", agent(deployed)["args"][1], "uninstall"]
    for one, other in ((former, agent(deployed)), (plugin, agents["initContainers"][0])):
        assert {key: one[key] for key in ("image", "securityContext", "volumeMounts")} == {
            key: other[key] for key in ("image", "securityContext", "volumeMounts")
        }
    assert plugin["args"] == ["cni", "uninstall", f"--bin-dir={install.BIN_DIR}"]


@needs_helm
def test_uninstalling_replaces_the_agents() -> None:
    found = objects(manifests.rendered("--set=uninstall=true"))
    assert ("DaemonSet", "podplane-uninstall") in found and ("DaemonSet", "podplane-agent") not in found
    assert ("ConfigMap", "podplane-agent") in found, "it says where things are"


@needs_helm
def test_an_agent_that_migrates_sees_what_host_local_has_given_out_and_can_not_change_it() -> None:
    found = objects(manifests.rendered("--set=migrateFrom=cni0"))
    assert configuration.parsed(yaml.safe_load(found["ConfigMap", "podplane-agent"]["data"]["config"])).migrate_from == "cni0"
    (mount,) = [one for one in agent(found)["volumeMounts"] if one["mountPath"] == str(former.FOLDER)]
    assert mount["readOnly"]
    assert next(one for one in pod_of(found)["volumes"] if one["name"] == mount["name"])["hostPath"]["path"] == str(
        former.FOLDER
    )
    with pytest.raises(manifests.Refused, match="migrateFrom"):
        manifests.rendered("--set=migrateFrom=a/b")


@needs_helm
def test_podplane_is_removed_from_some_nodes_while_agents_run_on_others() -> None:
    options = (
        r"--set-string=nodeSelector.example\.com/network=yes",
        r"--set-string=uninstallNodeSelector.example\.com/network=remove",
    )
    found = objects(manifests.rendered(*options))
    assert pod_of(found)["nodeSelector"] == {"kubernetes.io/os": "linux", "example.com/network": "yes"}
    gone = found["DaemonSet", "podplane-uninstall"]["spec"]["template"]["spec"]
    assert gone["nodeSelector"] == {"example.com/network": "remove"}


def test_the_deployment_has_the_rules_of_the_agent(deployed: dict[tuple[str, str], Object]) -> None:
    for one in rbac.manifests():
        namespace = one["metadata"].get("namespace", "")
        assert one in [found for found in yaml.safe_load_all(manifests.DEPLOY.read_text()) if found], (one["kind"], namespace)
    assert pod_of(deployed)["serviceAccountName"] == rbac.ACCOUNT


def controllers(found: dict[tuple[str, str], Object]) -> tuple[Object, Object]:
    """The pod of the controllers, and its container."""
    pod = found["Deployment", CONTROLLERS]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_controllers_have_the_rules_that_they_need_and_no_rights_on_the_machine(
    deployed: dict[tuple[str, str], Object],
) -> None:
    pod, container = controllers(deployed)
    assert pod["serviceAccountName"] == rbac.CONTROLLERS.name
    everything = [one for one in yaml.safe_load_all(manifests.DEPLOY.read_text()) if one]
    assert all(one in everything for one in rbac.manifests(rbac.CONTROLLERS.without_node_blocks))
    assert pools.definition() in everything
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in one for one in pod["volumes"]) and not {"hostPID", "hostIPC"} & pod.keys()


def test_controllers_are_two_on_two_machines_that_may_go_one_after_the_other(deployed: dict[tuple[str, str], Object]) -> None:
    deployment, budget = deployed["Deployment", CONTROLLERS]["spec"], deployed["PodDisruptionBudget", CONTROLLERS]["spec"]
    assert deployment["replicas"] == 2 and budget["maxUnavailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    (term,) = deployment["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert labels == deployment["selector"]["matchLabels"] == budget["selector"]["matchLabels"]
    assert labels == term["labelSelector"]["matchLabels"] and term["topologyKey"] == "kubernetes.io/hostname"
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}, "there may be no third machine"


def test_controllers_read_their_settings_and_are_asked_where_they_answer(deployed: dict[tuple[str, str], Object]) -> None:
    found = controllers_configuration.parsed(yaml.safe_load(deployed["ConfigMap", CONTROLLERS]["data"]["config"]))
    assert (found.node_blocks, found.load_balancers) == (None, True)
    pod, container = controllers(deployed)
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"] and volume["configMap"]["name"] == CONTROLLERS
    assert container["args"] == ["controllers", f"--config={mount['mountPath']}/config"]
    asked = [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")]
    assert {(one["host"], one["port"]) for one in asked} == {("127.0.0.1", found.health_port)}


@needs_helm
@pytest.mark.parametrize("is_on", [True, False])
def test_the_chart_gives_rights_for_node_blocks_where_these_are_on(is_on: bool) -> None:
    options = ("--set=nodeBlocks.enabled=true", "--set=nodeBlocks.cidrs={10.244.0.0/16}") if is_on else ()
    made = [one for one in yaml.safe_load_all(manifests.rendered(*options)) if one]
    wanted = rbac.CONTROLLERS if is_on else rbac.CONTROLLERS.without_node_blocks
    assert all(one in made for one in rbac.manifests(wanted))


@needs_helm
def test_values_of_controllers_are_their_settings() -> None:
    options = ("nodeBlocks.enabled=true", "nodeBlocks.cidrs={10.244.0.0/16,fd00::/48}", "nodeBlocks.maskSizeIPv4=25")
    more = ("loadBalancer.pools.default.addresses={192.0.2.0/28}", "controllers.config.lease_seconds=15", "api.host=10.0.0.1")
    found = objects(manifests.rendered(*(f"--set={one}" for one in (*options, *more))))
    settings = controllers_configuration.parsed(yaml.safe_load(found["ConfigMap", CONTROLLERS]["data"]["config"]))
    assert settings.lease_seconds == 15 and settings.node_blocks is not None
    assert [(str(one.network), one.length) for one in settings.node_blocks.ranges] == [("10.244.0.0/16", 25), ("fd00::/48", 64)]
    assert found["LoadBalancerPool", "default"]["spec"] == {"addresses": ["192.0.2.0/28"]}
    assert controllers(found)[1]["env"][0] == {"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"}


@needs_helm
@pytest.mark.parametrize("option", ["controllers.enabled=false", "uninstall=true"])
def test_controllers_can_be_left_out(option: str) -> None:
    found = objects(manifests.rendered(f"--set={option}"))
    assert not [name for _, name in found if name == CONTROLLERS]


def test_the_agent_has_the_rights_that_it_needs_and_no_others(deployed: dict[tuple[str, str], Object]) -> None:
    pod = pod_of(deployed)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostPID", "hostIPC"} & pod.keys() and pod["hostNetwork"]
    rights = {one["name"]: one["securityContext"] for one in (*pod["initContainers"], *pod["containers"])}
    closed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    assert rights["agent"] == closed | {"capabilities": {"drop": ["ALL"], "add": list(capabilities.NEEDED)}}
    assert rights["plugin"] == closed | {"capabilities": {"drop": ["ALL"]}}


def test_the_agent_finds_where_the_machine_s_files_are_mounted(deployed: dict[tuple[str, str], Object]) -> None:
    content = deployed["ConfigMap", "podplane-agent"]["data"]["config"]
    found = configuration.parsed(yaml.safe_load(content))
    pod, container = pod_of(deployed), agent(deployed)
    paths = {one["name"]: one.get("hostPath", {}).get("path") for one in pod["volumes"]}
    mounts = {one["mountPath"]: paths[one["name"]] for one in container["volumeMounts"]}
    assert mounts[found.sysctl_dir] == "/proc/sys/net"
    assert mounts[found.run_dir] == found.run_dir
    assert mounts[found.cni_conf_dir] == found.cni_conf_dir == install.CONF_DIR
    (namespaces,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/run/netns"]
    assert namespaces["mountPropagation"] == "HostToContainer" and mounts["/run/netns"] == "/run/netns"
    config = next(PurePosixPath(one.partition("=")[2]) for one in container["args"] if one.startswith("--config="))
    assert str(config.parent) in mounts and config.name in deployed["ConfigMap", "podplane-agent"]["data"]


def test_the_plugin_is_installed_where_engines_look(deployed: dict[tuple[str, str], Object]) -> None:
    pod = pod_of(deployed)
    (plugin,) = pod["initContainers"]
    assert plugin["args"] == ["cni", "install", "--programs-only", f"--bin-dir={install.BIN_DIR}"]
    (mount,) = plugin["volumeMounts"]
    assert mount["mountPath"] == install.BIN_DIR
    assert next(one for one in pod["volumes"] if one["name"] == mount["name"])["hostPath"]["path"] == install.BIN_DIR


def test_a_node_that_is_not_ready_gets_an_agent_and_the_port_answers(deployed: dict[tuple[str, str], Object]) -> None:
    pod, container = pod_of(deployed), agent(deployed)
    assert pod["tolerations"] == [{"operator": "Exists"}]
    (port,) = container["ports"]
    assert port["containerPort"] == port["hostPort"] == AGENT_PORT
    assert {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")} == {port["name"]}


def test_the_version_of_the_chart_is_that_of_the_package(deployed: dict[tuple[str, str], Object]) -> None:
    chart = yaml.safe_load((manifests.CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == podplane.__version__
    images = {one["image"] for one in (*pod_of(deployed)["initContainers"], *pod_of(deployed)["containers"])}
    assert images == {f"localhost/podplane:{podplane.__version__}"}


def test_every_value_has_a_schema_of_its_own() -> None:
    values = yaml.safe_load((manifests.CHART / "values.yaml").read_text())
    schema = json.loads((manifests.CHART / "values.schema.json").read_text())
    assert list(open_objects(schema, values, "values")) == []


def open_objects(schema: Object, values: Object, path: str) -> Iterator[str]:
    """Those that have a key that is not described, or of which any other one is taken."""
    if not values.keys() <= schema["properties"].keys() or schema.get("additionalProperties") is not False:
        yield path
    for name, value in values.items():
        if isinstance(value, dict) and "properties" in schema["properties"].get(name, {}):
            yield from open_objects(schema["properties"][name], value, f"{path}.{name}")


def test_a_name_server_is_a_setting_and_one_capability_more(deployed: dict[tuple[str, str], Object]) -> None:
    found = objects(manifests.NAMES.read_text())
    settings = configuration.parsed(yaml.safe_load(found["ConfigMap", "podplane-agent"]["data"]["config"]))
    assert settings.has_name_server and "dns" not in deployed["ConfigMap", "podplane-agent"]["data"]["config"]
    named, usual = agent(found), agent(deployed)
    added = [*capabilities.NEEDED, *capabilities.OF_NAME_SERVER]
    assert named.pop("securityContext") == usual.pop("securityContext") | {"capabilities": {"drop": ["ALL"], "add": added}}
    ports = {one["name"]: one["hostPort"] for one in named.pop("ports")}
    assert ports == {one["name"]: one["hostPort"] for one in usual.pop("ports")} | {"names": NAME_SERVER_PORT}
    assert named == usual and pod_of(found)["dnsPolicy"] == "Default", "the machine's servers are what it was given"


def test_the_service_of_the_dns_selects_nothing_and_has_the_address_that_is_answered_at() -> None:
    (service,) = objects(manifests.NAMES_SERVICE.read_text()).values()
    assert f"{service['metadata']['namespace']}/{service['metadata']['name']}" == SERVICE
    assert (service["spec"]["clusterIP"], "selector" in service["spec"]) == ("10.96.0.10", False)
    ports = [(one["name"], one["protocol"], one["port"]) for one in service["spec"]["ports"]]
    assert ports == [(name, protocol, number) for name, protocol, number in endpoints.PORTS]


@needs_helm
def test_where_there_is_no_service_of_the_dns_the_chart_has_it_whether_or_not_it_is_to_take_over() -> None:
    """That of others is left alone, and its own kept, by `lookup`, for which there is a cluster in tests/cluster alone."""
    assert ("Service", "kube-dns") not in objects(manifests.rendered())
    found = objects(manifests.rendered("--set=dns.enabled=true", "--set=dns.takeOver=true", "--set=dns.ips={10.43.0.10}"))
    assert found["Service", "kube-dns"]["spec"]["clusterIP"] == "10.43.0.10"
    content = yaml.safe_load(found["ConfigMap", "podplane-agent"]["data"]["config"])
    assert content["dns"] == {"domain": "cluster.local", "ips": ["10.43.0.10"], "take_over": True}
    both = objects(manifests.rendered("--set=dns.enabled=true", "--set=dns.ips={10.96.0.10,fd00::a}"))
    assert both["Service", "kube-dns"]["spec"]["clusterIPs"] == ["10.96.0.10", "fd00::a"]


@needs_helm
def test_an_address_of_the_api_is_what_the_agent_asks() -> None:
    found = objects(manifests.rendered("--set", "api.host=fd00::10", "--set", "api.port=7443"))
    environment = {one["name"]: one.get("value") for one in agent(found)["env"]}
    assert (environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]) == ("fd00::10", "7443")


@needs_helm
def test_settings_of_the_agent_are_passed_on_and_start_it_anew() -> None:
    usual = objects(manifests.rendered())
    found = objects(manifests.rendered("--set", "config.network.mtu=1400", "--set", "config.log_level=info"))
    settings = configuration.parsed(yaml.safe_load(found["ConfigMap", "podplane-agent"]["data"]["config"]))
    assert (settings.network().mtu, settings.log_level, settings.sysctl_dir) == (1400, "info", "/host/net")
    sums = [one["DaemonSet", "podplane-agent"]["spec"]["template"]["metadata"]["annotations"] for one in (usual, found)]
    assert sums[0] != sums[1]


@needs_helm
@pytest.mark.parametrize(
    ("options", "port", "own"),
    [
        ((), AGENT_PORT, {}),
        (("services.kubeProxyReplacement=false",), BESIDE_PORT, {"services": {"enabled": False}}),
        (("agentPort=9999", "config.network.mtu=1400"), 9999, {"network": {"agent_port": 9999, "mtu": 1400}}),
        (
            ("services.cleanKubeProxy=true", "cni.replace=true", "agentPort=10356"),
            BESIDE_PORT,
            {"clean_kube_proxy": True, "cni_replace": True, "network": {"agent_port": BESIDE_PORT}},
        ),
    ],
)
def test_what_is_there_beside_podplane_is_told_to_agents(options: tuple[str, ...], port: int, own: Object) -> None:
    found = objects(manifests.rendered(*(f"--set={one}" for one in options)))
    content = yaml.safe_load(found["ConfigMap", "podplane-agent"]["data"]["config"])
    assert content == {"sysctl_dir": "/host/net", "cni_conf_dir": install.CONF_DIR} | own
    assert configuration.parsed(content).network().agent_port == port
    (declared,) = [one for one in agent(found)["ports"] if one["name"] == "health"]
    assert declared["containerPort"] == declared["hostPort"] == port


@needs_helm
def test_how_nodes_reach_each_other_is_told_to_all_of_them() -> None:
    assert ("ConfigMap", "podplane-network") not in objects(manifests.rendered())
    options = ("--set=network.backend=vxlan", "--set=network.vxlan-vni=16777215")
    data = objects(manifests.rendered(*options))["ConfigMap", "podplane-network"]["data"]
    assert data == {"backend": "vxlan", "vxlan-vni": "16777215"}
    cluster_settings.applied(data, NetworkConfig(("10.244.0.0/16",)))


def test_the_chart_knows_all_settings_of_the_cluster() -> None:
    schema = json.loads((manifests.CHART / "values.schema.json").read_text())["properties"]["network"]["properties"]
    assert schema.keys() == cluster_settings.KEYS.keys()
    assert tuple(schema[cluster_settings.BACKEND]["enum"]) == NAMES


@needs_helm
@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("aip.host=10.0.0.1", "aip"),
        ("api.hots=10.0.0.1", "hots"),
        ("api.host=https://10.0.0.1", "host"),
        ("network.backend=bgp", "backend"),
        ("config.sysctl_dir=/proc/sys/net", "sysctl_dir"),
        ("cni.confDir=net.d", "confDir"),
        ("maxUnavailable=0", "maxUnavailable"),
        ("dns.ips={10.96.0.10/32}", "ips"),
        ("dns.take_over=true", "take_over"),
        ("config.dns.ips={10.96.0.10}", "dns"),
        ("nodeBlocks.enabled=true", "nodeBlocks.cidrs"),
        ("nodeBlocks.cidr=10.0.0.0/16", "cidr"),
        ("loadBalancer.pools.p.adresses={192.0.2.1}", "adresses"),
        ("controllers.config.node_blocks=1", "node_blocks"),
        ("config.services.enabled=false", "enabled"),
        ("services.kubeProxy=false", "kubeProxy"),
        ("config.network.agent_port=10256", "agent_port"),
        ("config.network.nonsense=1", "nonsense"),
        ("config.network.kernel=6.1", "kernel"),
        ("config.network.mtu=large", "mtu"),
        ("config.services.nonsense=1", "nonsense"),
        ("config.hostports.x=1", "x"),
        ("migrateFrom=..", "migrateFrom"),
        ("nodeBlocks.cidrs={10.0.0.0/33}", "cidrs"),
        ("nodeBlocks.cidrs={fd00::/129}", "cidrs"),
        ("loadBalancer.pools.p.addresses={192.0.2.0/33}", "addresses"),
    ],
)
def test_a_value_that_can_t_be_is_refused(option: str, word: str) -> None:
    with pytest.raises(manifests.Refused, match=word):
        manifests.rendered("--set", option)


POOL = "loadBalancer.pools.p.addresses={192.0.2.1}"
BESIDE = "services.kubeProxyReplacement=false"


@needs_helm
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("controllers.enabled=false", POOL), "loadBalancer.pools.* set controllers.enabled"),
        (("loadBalancer.enabled=false", POOL), "loadBalancer.pools.* set loadBalancer.enabled"),
        (("controllers.enabled=false", "nodeBlocks.enabled=true"), "nodeBlocks.* set controllers.enabled"),
        (("dns.takeOver=true",), "dns.takeOver.* set dns.enabled"),
        (("services.cleanKubeProxy=true", BESIDE), "services.cleanKubeProxy"),
        ((f"agentPort={NAME_SERVER_PORT}",), f"{NAME_SERVER_PORT} is the name server's"),
        ((f"agentPort={STATUS_PORT}",), f"{STATUS_PORT} is kube-proxy's"),
        ((f"agentPort={AGENT_PORT}", BESIDE), f"{AGENT_PORT} is kube-proxy's"),
        ((f"migrateFrom={NetworkConfig(()).bridge}",), "migrateFrom: cbr0"),
        (("migrateFrom=br0", "config.network.bridge=br0"), "migrateFrom: br0"),
    ],
)
def test_values_that_do_not_go_together_are_refused(options: tuple[str, ...], said: str) -> None:
    with pytest.raises(manifests.Refused, match=said):
        manifests.rendered(*(f"--set={one}" for one in options))


@needs_helm
def test_another_namespace_is_refused() -> None:
    with pytest.raises(manifests.Refused, match="kube-system"):
        manifests.rendered(namespace="default")
