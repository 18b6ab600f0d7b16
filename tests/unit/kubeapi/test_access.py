"""The ways to an API server: kubeconfigs as they are found in the wild, a pod's own, and what is wrong with them."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from podplane.kubeapi.access import Access, AccessError, from_kubeconfig, in_cluster
from tests.unit.apiserver.live import certificates


def written(path: Path, cluster: dict[str, Any], user: dict[str, Any] | None) -> Path:
    """A kubeconfig of one context."""
    document = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"} if user is not None else {"cluster": "c"}}],
        "users": [{"name": "u", "user": user}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_token_and_authorities_inside(tmp_path: Path) -> None:
    ca = certificates().authority
    cluster = {"server": "https://[fd00::1]:6443/k8s/x", "certificate-authority-data": base64.b64encode(ca.encode()).decode()}
    access = from_kubeconfig(written(tmp_path / "config", {**cluster, "tls-server-name": "kubernetes"}, {"token": "t"}))
    assert (access.host, access.port, access.prefix, access.server_name) == ("fd00::1", 6443, "/k8s/x", "kubernetes")
    assert (access.address, access.bearer(), access.ca) == ("[fd00::1]:6443", "t", ca)
    assert access.context().verify_mode is ssl.CERT_REQUIRED


def test_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(certificates().authority)
    (tmp_path / "cert.pem").write_text(certificates().certificate.read_text())
    (tmp_path / "key.pem").write_text(certificates().key.read_text())
    (tmp_path / "token").write_text("t\n")
    user = {"client-certificate": "cert.pem", "client-key": "key.pem", "tokenFile": "token", "token": "not this one"}
    access = from_kubeconfig(written(tmp_path / "config", {"server": "https://h", "certificate-authority": "ca.pem"}, user))
    assert (access.port, access.bearer(), access.ca) == (443, "t", certificates().authority)
    assert access.context().verify_mode is ssl.CERT_REQUIRED


def test_without_a_user_and_without_verification(tmp_path: Path) -> None:
    access = from_kubeconfig(written(tmp_path / "c", {"server": "https://h:1", "insecure-skip-tls-verify": True}, None))
    assert (access.bearer(), access.context().verify_mode) == ("", ssl.CERT_NONE)


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {}, "no https URL"),
        ({"server": "http://h"}, {}, "no https URL"),
        ({"server": "https://h"}, {"exec": {"command": "aws"}}, "credentials from a program"),
        ({"server": "https://h"}, {"tokenFile": "nowhere"}, "can't be read"),
        ({"server": "https://h", "certificate-authority": "nowhere"}, {}, "certificate-authority"),
        ({"server": "https://h", "certificate-authority-data": "!"}, {}, "certificate-authority"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], words: str) -> None:
    with pytest.raises(AccessError, match=words) as refused:
        from_kubeconfig(written(tmp_path / "config", cluster, user))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "current-context: x", "contexts: [{name: x, context: {cluster: c}}]"])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(AccessError):
        from_kubeconfig(path)
    with pytest.raises(AccessError):
        from_kubeconfig(tmp_path / "nowhere")


def test_certificates_that_are_none() -> None:
    with pytest.raises(AccessError, match="can't be used"):
        Access("h", 1, ca="nonsense").context()


def test_a_pods_own(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(AccessError, match="no pod"):
        in_cluster(tmp_path, {})
    with pytest.raises(AccessError, match=r"ca\.crt can't be read"):
        in_cluster(tmp_path, environment)
    (tmp_path / "ca.crt").write_text(certificates().authority)
    with pytest.raises(AccessError, match="token file"):
        in_cluster(tmp_path, environment)
    (tmp_path / "token").write_text("t")
    access = in_cluster(tmp_path, environment)
    assert (access.address, access.bearer()) == ("10.96.0.1:443", "t")
