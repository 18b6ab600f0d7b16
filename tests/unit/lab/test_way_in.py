"""A lab's certificates and keys, and the kubeconfigs that have them."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from podplane.lab import keys, kubeconfig
from podplane.lab.certificates import AUTHORITY_DAYS, prepare
from podplane.lab.errors import LabError
from podplane.lab.folder import Endpoint, Folder

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
IPS = [ipaddress.ip_address(text) for text in ("127.0.0.1", "192.168.1.1", "fd00::1")]


def test_the_authority_stays_and_the_servers_certificate_is_new(tmp_path: Path) -> None:
    first = prepare(tmp_path / "pki", ["localhost", "kubernetes"], IPS, NOW)
    server = x509.load_pem_x509_certificate(first.certificate.read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "kubernetes"]
    assert names.get_values_for_type(x509.IPAddress) == IPS
    authority = x509.load_pem_x509_certificate(first.authority.encode())
    server.verify_directly_issued_by(authority)
    second = prepare(tmp_path / "pki", ["localhost"], IPS[:1], NOW)
    assert second.authority == first.authority
    assert second.certificate.read_bytes() != server.public_bytes(Encoding.PEM)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "pki").iterdir()} == dict.fromkeys(
        ("ca.crt", "ca.key", "apiserver.crt", "apiserver.key"), 0o600
    )


@pytest.mark.parametrize("broken", ["ca.key", "ca.crt"])
def test_an_authority_that_is_broken_or_about_to_end_is_replaced(tmp_path: Path, broken: str) -> None:
    first = prepare(tmp_path, [], IPS, NOW)
    (tmp_path / broken).write_text("nonsense")
    second = prepare(tmp_path, [], IPS, NOW)
    assert second.authority != first.authority
    third = prepare(tmp_path, [], IPS, NOW + datetime.timedelta(days=AUTHORITY_DAYS - 30))
    assert third.authority != second.authority


def test_keys_stay_and_are_the_owners_alone(tmp_path: Path) -> None:
    first = keys.load(tmp_path / "pki")
    assert keys.load(tmp_path / "pki") == first
    assert (tmp_path / "pki" / keys.FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / "pki" / keys.FILE).write_text("{")
    assert keys.load(tmp_path / "pki").admin != first.admin


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = Folder.named("test")
    folder.create()
    monkeypatch.setattr(Folder, "endpoint", lambda _: Endpoint("127.0.0.1", 6443, "token", "ca"))
    return folder


def test_merging_keeps_what_is_there_and_a_link_a_link(folder: Folder, tmp_path: Path) -> None:
    real, path = tmp_path / "real", tmp_path / "config"
    real.write_text("users: [{name: other, user: {token: x}}]\npreferences: {colors: true}\n")
    path.symlink_to(real)
    kubeconfig.merge(folder, path)
    kubeconfig.merge(folder, path)
    found = yaml.safe_load(real.read_text())
    assert path.is_symlink()
    assert [user["name"] for user in found["users"]] == ["other", "podplane-test"]
    assert (found["preferences"], found["current-context"]) == ({"colors": True}, "podplane-test")
    assert kubeconfig.remove(folder, path)
    assert not kubeconfig.remove(folder, path)
    found = yaml.safe_load(real.read_text())
    assert ([user["name"] for user in found["users"]], found["current-context"]) == (["other"], "")


@pytest.mark.parametrize("text", ["a: [", "[1]", "users: 5", "users: [5]", "\x00"])
def test_a_file_that_is_none_stays_as_it_is(folder: Folder, tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(LabError, match="mend it"):
        kubeconfig.merge(folder, path)
    assert path.read_text() == text


def test_the_users_file_is_where_kubectl_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", ":/a/b:/c")
    assert kubeconfig.users_file() == Path("/a/b")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", "/home/x")
    assert kubeconfig.users_file() == Path("/home/x/.kube/config")
