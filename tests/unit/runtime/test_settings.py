"""What a container finds: its variables, its resolver, its hosts, its name, and the program of its image."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.model.pod import Container, Pod
from podplane.model.service import Service
from podplane.runtime import image_files, network_files
from podplane.runtime.environment import (
    CONFIG_MAPS,
    MAX_STRING,
    SECRETS,
    ConfigError,
    Facts,
    TooLongError,
    expand,
    expand_all,
    service_variables,
    variables,
)
from podplane.runtime.images import Command, ImageError, command_in, command_of, files_of

SOURCES: dict[tuple[str, str], Any] = {
    (CONFIG_MAPS, "app"): {"data": {"colour": "blue", "size": "3", "not a name": "x"}},
    (SECRETS, "key"): {"data": {"word": base64.b64encode(b"sesame").decode()}},
}


def pod(container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    main = {"name": "main", "image": "podplane/echo", **(container or {})}
    metadata = {"name": "web-0", "namespace": "shop", "uid": "u", "labels": {"app": "web", "b": 'say "x"'}}
    return msgspec.convert({"metadata": metadata, "spec": {"containers": [main], "nodeName": "node1", **spec}}, Pod)


def environment(container: dict[str, Any], services: tuple[Service, ...] = (), **spec: Any) -> dict[str, str]:
    one = pod(container, **spec)
    facts = Facts(("10.244.1.2", "fd00::2"), ("192.168.1.10",), {"memory": "2Gi", "cpu": "2"}, SOURCES, services)
    return variables(one, one.spec.containers[0], facts)


def value_from(**source: Any) -> str | None:
    return environment({"env": [{"name": "X", "valueFrom": source}]}).get("X")


def test_variables_stand_for_those_before_them() -> None:
    env = [("A", "1"), ("B", "$(A)2"), ("C", "$(D) $(B)"), ("D", "$$(A) $$$(A)"), ("A", "$(A)!")]
    found = environment({"env": [{"name": name, "value": value} for name, value in env]})
    assert found == {"A": "1!", "B": "12", "C": "$(D) 12", "D": "$(A) $1"}


@pytest.mark.parametrize("text", ["$", "$(", "$()", "$(A", "a$b", "$(NOPE)"])
def test_what_is_no_reference_stays(text: str) -> None:
    assert expand(text, {"A": "1"}) == text


@given(st.lists(st.sampled_from(["$", "$$", "(", ")", "$(", "$(A)", "$(NO)", "A", ""])).map("".join))
def test_an_expansion_is_what_the_expression_says(text: str) -> None:
    """However it is cut: each reference from left to right, of which none begins within another."""
    plain = re.sub(r"\$\$|\$\(([^)]+)\)", lambda m: "$" if m[1] is None else {"A": "($(A)"}.get(m[1], m[0]), text)
    assert expand(text, {"A": "($(A)"}) == plain


class Counted(dict[str, str]):
    """Variables that count how often they are asked for."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


def test_no_more_is_built_than_a_program_can_take() -> None:
    """execve(2): a string has 128 KiB with the NUL at its end."""
    assert len(expand("$(A)" * 127 + "x" * 1023, {"A": "x" * 1024})) == MAX_STRING - 1
    known = Counted(A="x" * 1024)
    with pytest.raises(TooLongError, match="argument list too long: an expanded text is more than 131071 bytes"):
        expand("$(A)" * 100_000, known)
    assert known.asked == 128


def test_references_without_an_end_are_looked_at_once() -> None:
    """An expression that looks for each one's end would take the square of it: hours."""
    assert expand("$(" * 1_000_000 + "$$", {}) == "$(" * 1_000_000 + "$"


def doubling(count: int, first: str = "x" * 10) -> list[dict[str, str]]:
    return [{"name": "A0", "value": first}] + [{"name": f"A{n}", "value": f"$(A{n - 1})" * 2} for n in range(1, count)]


def test_variables_that_double_end_where_no_program_could_start() -> None:
    assert len(environment({"env": doubling(14)})["A13"]) == 10 * 2**13
    with pytest.raises(TooLongError, match=r"^argument list too long: environment variable A14 is more than 131071 bytes$"):
        environment({"env": doubling(60)})
    with pytest.raises(TooLongError, match="environment variable A1 is"):
        environment({"env": doubling(2, "\N{EURO SIGN}" * 25_000)})


@pytest.mark.parametrize("name", ["B{}", "SAME"])
def test_all_variables_together_have_a_bound(name: str) -> None:
    """A fourth of RLIMIT_STACK: 2 MiB. What is written over counts, too."""
    env = [*doubling(14), *({"name": name.format(n), "value": "$(A13)"} for n in range(100))]
    with pytest.raises(TooLongError, match=f"with environment variable {name[:1]}[0-9A-Z]+ it is more than 2097152 bytes"):
        environment({"env": env})
    assert TooLongError.reason == "CreateContainerError"


def test_whole_sources_have_the_bound_too() -> None:
    one = pod({"envFrom": [{"prefix": f"P{n}_", "configMapRef": {"name": "big"}} for n in range(1000)]})
    facts = Facts((), (), {}, {(CONFIG_MAPS, "big"): {"data": {"x": "x" * 100_000}}})
    with pytest.raises(TooLongError, match="with environment variable P20_x it is"):
        variables(one, one.spec.containers[0], facts)


class Guarded(dict[str, str]):
    """Values of which one is taken at a time."""

    def items(self) -> Any:
        raise AssertionError("all values were looked at for one of them")


@pytest.mark.parametrize(
    ("resource", "source", "values"),
    [
        (CONFIG_MAPS, {"data": Guarded(a="1", b="2"), "binaryData": Guarded(c="/w==")}, {"a": "1", "b": "2", "c": "\udcff"}),
        (SECRETS, {"data": Guarded(a="MQ==", b="Mg==")}, {"a": "1", "b": "2"}),
    ],
)
def test_a_variable_takes_one_value_of_its_source(resource: str, source: dict[str, Any], values: dict[str, str]) -> None:
    """As many variables as values would else cost the square of their number."""
    field = "configMapKeyRef" if resource == CONFIG_MAPS else "secretKeyRef"
    env = [{"name": k, "valueFrom": {field: {"name": "s", "key": k, "optional": True}}} for k in [*values, "none"]]
    one = pod({"env": env})
    assert variables(one, one.spec.containers[0], Facts((), (), {}, {(resource, "s"): source})) == values


def test_the_words_of_a_command_have_the_same_bounds() -> None:
    assert expand_all(["a", "$(A)"], {"A": "1"}) == ["a", "1"]
    with pytest.raises(TooLongError, match="word 1 of the command is more than 131071 bytes"):
        expand_all(["sh", "$(A)$(A)"], {"A": "x" * 70_000})
    with pytest.raises(TooLongError, match="with word 30 of the command it is more than 2097152 bytes"):
        expand_all(["sh"] + ["$(A)"] * 1000, {"A": "x" * 70_000})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'app="web"\nb="say \\"x\\""'),
        ("spec.nodeName", "node1"),
        ("status.podIP", "10.244.1.2"),
        ("status.podIPs", "10.244.1.2,fd00::2"),
        ("status.hostIP", "192.168.1.10"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert value_from(fieldRef={"fieldPath": path}) == value


def test_a_field_that_it_has_not_is_said() -> None:
    with pytest.raises(ConfigError, match=r"unsupported fieldPath: spec\.restartPolicy"):
        value_from(fieldRef={"fieldPath": "spec.restartPolicy"})


@pytest.mark.parametrize(
    ("resources", "reference", "value"),
    [
        ({"limits": {"memory": "64Mi"}}, {"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        ({"limits": {"cpu": "250m"}}, {"resource": "limits.cpu"}, "1"),
        ({"limits": {"cpu": "250m"}}, {"resource": "limits.cpu", "divisor": "1m"}, "250"),
        ({}, {"resource": "limits.memory", "divisor": "1Gi"}, "2"),
        ({}, {"resource": "requests.memory"}, "0"),
    ],
)
def test_limits_and_requests_in_units_of_a_divisor(resources: Any, reference: Any, value: str) -> None:
    env = [{"name": "X", "valueFrom": {"resourceFieldRef": reference}}]
    assert environment({"resources": resources, "env": env})["X"] == value


def test_keys_of_config_maps_and_secrets() -> None:
    assert value_from(configMapKeyRef={"name": "app", "key": "colour"}) == "blue"
    assert value_from(secretKeyRef={"name": "key", "key": "word"}) == "sesame"
    assert value_from(configMapKeyRef={"name": "app", "key": "none", "optional": True}) is None
    assert value_from(configMapKeyRef={"name": "none", "key": "none", "optional": True}) is None
    with pytest.raises(ConfigError, match="couldn't find key none in ConfigMap shop/app"):
        value_from(configMapKeyRef={"name": "app", "key": "none"})
    with pytest.raises(ConfigError, match='secret "none" not found'):
        value_from(secretKeyRef={"name": "none", "key": "x"})


def test_whole_sources_with_a_prefix_leave_out_what_is_no_name() -> None:
    whole = [{"prefix": "P_", "configMapRef": {"name": "app"}}, {"secretRef": {"name": "none", "optional": True}}]
    found = environment({"envFrom": whole, "env": [{"name": "P_size", "value": "4"}]})
    assert found == {"P_colour": "blue", "P_size": "4"}
    with pytest.raises(ConfigError, match='configmap "none" not found'):
        environment({"envFrom": [{"configMapRef": {"name": "none"}}]})


def service(name: str, ip: str, *ports: tuple[str, int, str], namespace: str = "shop") -> Service:
    own = [{"name": n, "port": p, "protocol": proto} for n, p, proto in ports]
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": own}}
    return msgspec.convert(body, Service)


def test_variables_of_services() -> None:
    found = service_variables(service("my-db", "10.96.0.7", ("sql", 5432, "TCP"), ("", 53, "UDP")))
    assert found == {
        "MY_DB_SERVICE_HOST": "10.96.0.7",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL": "5432",
        "MY_DB_PORT": "tcp://10.96.0.7:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.7:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.7",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.7:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.7",
    }
    assert service_variables(service("six", "fd00::7", ("", 80, "TCP")))["SIX_PORT"] == "tcp://[fd00::7]:80"
    assert service_variables(service("headless", "None", ("", 80, "TCP"))) == {}


def test_without_service_links_only_the_api_is_told() -> None:
    both = (
        service("db", "10.96.0.7", ("", 1, "TCP")),
        service("kubernetes", "10.96.0.1", ("", 443, "TCP"), namespace="default"),
    )
    assert "DB_SERVICE_HOST" in environment({}, both)
    found = environment({}, both, enableServiceLinks=False)
    assert "DB_SERVICE_HOST" not in found
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


# Names.


def test_hosts_name_the_pod_and_its_aliases() -> None:
    one = pod(subdomain="db", hostname="first", hostAliases=[{"ip": "192.0.2.7", "hostnames": ["a", "b"]}])
    lines = network_files.hosts(one, ["10.244.1.2", "fd00::2"], "first", "cluster.local").splitlines()
    assert "10.244.1.2\tfirst.db.shop.svc.cluster.local\tfirst" in lines
    assert "fd00::2\tfirst.db.shop.svc.cluster.local\tfirst" in lines
    assert lines[0] == "# Kubernetes-managed hosts file."
    assert lines[-3:] == ["", "# Entries added by HostAliases.", "192.0.2.7\ta\tb"]


def test_hosts_in_the_nodes_network_are_the_nodes() -> None:
    machine = "127.0.0.1 localhost\n"
    first = "# Kubernetes-managed hosts file (host network).\n"
    assert network_files.hosts_of_node(pod(), machine) == first + machine
    aliases = [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]
    added = "\n# Entries added by HostAliases.\n192.0.2.7\ta\tb\n"
    assert network_files.hosts_of_node(pod(hostAliases=aliases), machine) == first + machine + added


@pytest.mark.parametrize(("name", "wanted"), [("web", "web"), ("x" * 70, "x" * 63), ("y" * 62 + ".z", "y" * 62)])
def test_a_host_name_ends_where_the_kernels_does(name: str, wanted: str) -> None:
    assert network_files.hostname(pod(hostname=name)) == wanted
    assert network_files.hostname(pod()) == "web-0"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, "web-0"),
        ({"subdomain": "db"}, "web-0"),
        ({"setHostnameAsFQDN": True}, "web-0"),
        ({"setHostnameAsFQDN": True, "subdomain": "db"}, "web-0.db.shop.svc.lab.example"),
    ],
)
def test_the_kernel_has_the_full_name_where_the_spec_says_so(spec: dict[str, Any], wanted: str) -> None:
    assert network_files.kernel_name(pod(**spec), "lab.example") == wanted
    assert network_files.name_trouble(pod(**spec), "lab.example") == ""


def test_a_name_that_overrides_has_no_domain() -> None:
    one = pod(hostname="first", subdomain="db", hostnameOverride="any.name.example")
    assert (network_files.hostname(one), network_files.domain(one, "cluster.local")) == ("any.name.example", "")


# Images.


@pytest.mark.parametrize(
    ("image", "command", "args", "wanted"),
    [
        ("podplane/echo", (), (), ["podplane/echo"]),
        ("docker.io/podplane/echo:v1", (), ("--port=1",), ["podplane/echo", "--port=1"]),
        ("podplane/echo@sha256:00ff", ("sleep", "1"), (), ["sleep", "1"]),
        ("registry.k8s.io/e2e-test-images/agnhost:2.53", (), (), ["/agnhost", "pause"]),
        ("registry.k8s.io/e2e-test-images/agnhost:2.53", (), ("netexec",), ["/agnhost", "netexec"]),
        ("registry.k8s.io/e2e-test-images/jessie-dnsutils:1.7", ("sh", "-c", "dig x"), (), ["sh", "-c", "dig x"]),
        ("registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0", ("dig", "x"), (), ["dig", "x"]),
        ("registry.k8s.io/e2e-test-images/nginx:1.27-0", (), (), ["/agnhost", "netexec", "--http-port=80"]),
        ("podplane/agnhost", ("/agnhost", "porter"), ("--x",), ["/agnhost", "porter", "--x"]),
        ("podplane/agnhost", ("/agnhost-2",), ("override",), ["/agnhost-2", "override"]),
        ("registry.k8s.io/pause:3.10", (), (), ["/pause"]),
        ("host/python3", ("python3",), ("-V",), ["python3", "-V"]),
    ],
)
def test_an_image_is_a_program(image: str, command: tuple[str, ...], args: tuple[str, ...], wanted: list[str]) -> None:
    found = command_of(Container(name="c", image=image, command=command, args=args))
    programs = {"podplane/echo": "podplane/echo", "/agnhost": "podplane/agnhost", "/agnhost-2": "podplane/agnhost"}
    assert list(found.words) == wanted
    assert found.program == {**programs, "/pause": "podplane/client"}.get(wanted[0], "")


@pytest.mark.parametrize(
    ("image", "word", "program"),
    [
        ("podplane/agnhost", "/agnhost", "podplane/agnhost"),
        ("podplane/agnhost", "sh", ""),
        ("podplane/echo", "/agnhost", ""),
        ("podplane/echo", "podplane/probe", "podplane/probe"),
        ("registry.k8s.io/pause:3.10", "/pause", "podplane/client"),
        ("host/sh", "/agnhost", ""),
    ],
)
def test_a_command_in_a_container_may_be_the_program_of_its_image(image: str, word: str, program: str) -> None:
    assert command_in(image, [word, "help"]) == Command((word, "help"), program)


def test_every_file_that_an_image_names_is_made(tmp_path: Path) -> None:
    image_files.prepare(tmp_path, b"certificate", b"key")
    for name in ("podplane/agnhost", "registry.k8s.io/pause", "podplane/echo"):
        for bind in image_files.binds(tmp_path, files_of(name)):
            assert Path(bind.source).is_file()
            assert bind.copied
    assert set(files_of("podplane/agnhost")) == {"/agnhost", "/agnhost-2", "/localhost.crt", "/localhost.key"}
    assert files_of("host/sh") == {}


def test_a_program_is_a_file_for_a_shell(tmp_path: Path) -> None:
    image_files.prepare(tmp_path, b"", b"")
    file = tmp_path / "images" / "agnhost"
    done = subprocess.run(["sh", "-c", f"{file} entrypoint-tester 'a b'"], capture_output=True, text=True, env={})
    assert done.stdout == f"[{file} entrypoint-tester a b]\n"
    assert subprocess.run([file, "nonsense"], capture_output=True, env={}).returncode == 1


@pytest.mark.parametrize(
    ("image", "why"),
    [("nginx", "a lab has no registry: use podplane/echo"), ("podplane/ech", "no registry"), ("host/sh", "give a command")],
)
def test_another_image_says_what_would_work(image: str, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        command_of(Container(name="c", image=image))
