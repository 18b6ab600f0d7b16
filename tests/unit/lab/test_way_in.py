"""A lab's certificates and keys, and the kubeconfigs that have them."""

from __future__ import annotations

import datetime
import ipaddress
import os
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
    kubeconfig.merge(folder, [path])
    kubeconfig.merge(folder, [path])
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
        kubeconfig.merge(folder, [path])
    assert path.read_text() == text


def written(path: Path, *names: str, current: str = "") -> Path:
    """A kubeconfig with these contexts."""
    contexts = [{"name": name, "context": {"cluster": name, "user": name}} for name in names]
    path.write_text(yaml.safe_dump({"contexts": contexts, **({"current-context": current} if current else {})}))
    return path


def contexts(path: Path) -> tuple[list[str], str]:
    """The names of its contexts, and the current one."""
    found = yaml.safe_load(path.read_text())
    return [one["name"] for one in found.get("contexts") or []], found.get("current-context", "")


def test_of_several_files_each_change_goes_where_kubectl_makes_it(folder: Folder, tmp_path: Path) -> None:
    none, first = tmp_path / "none", written(tmp_path / "1", "a")
    second = written(tmp_path / "2", "b", current="b")
    assert kubeconfig.merge(folder, [none, first, second]) == first
    assert contexts(first) == (["a", "podplane-test"], "")
    assert contexts(second) == (["b"], "podplane-test")
    assert not none.exists()


def test_an_entry_is_renewed_where_it_is(folder: Folder, tmp_path: Path) -> None:
    first, second = written(tmp_path / "1", "a"), written(tmp_path / "2", "podplane-test")
    assert kubeconfig.merge(folder, [first, second]) == second
    assert contexts(first) == (["a"], "")


def test_of_files_that_are_not_there_the_last_is_made(folder: Folder, tmp_path: Path) -> None:
    assert kubeconfig.merge(folder, [tmp_path / "1", tmp_path / "new" / "2"]) == tmp_path / "new" / "2"
    assert contexts(tmp_path / "new" / "2") == (["podplane-test"], "podplane-test")


def test_a_labs_own_file_is_never_merged_into(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Folder.named("other")
    other.create()
    link = tmp_path / "link"
    link.symlink_to(other.kubeconfig)
    monkeypatch.setenv("KUBECONFIG", f"{folder.kubeconfig}:{link}:{tmp_path / 'mine'}")
    assert kubeconfig.users_files() == [tmp_path / "mine"]
    monkeypatch.setenv("KUBECONFIG", str(folder.kubeconfig))
    with pytest.raises(LabError, match=r"`unset KUBECONFIG` to merge into yours"):
        kubeconfig.merge(folder, kubeconfig.users_files())


def test_a_file_that_is_read_only_stays_as_it_is(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "1", "a")
    path.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for everybody but root
    with pytest.raises(LabError, match=r"can't be written \(it is read-only\)"):
        kubeconfig.merge(folder, [path])
    assert contexts(path) == (["a"], "")


def test_a_file_below_a_file_is_said_in_one_line(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "1").write_text("")
    for path, why in ((tmp_path / "1" / "config", "Not a directory"), (tmp_path, "Is a directory")):
        with pytest.raises(LabError, match=rf"\({why}\): mend it") as refused:
            kubeconfig.merge(folder, [path])
        assert "\n" not in str(refused.value)


def test_the_current_context_is_what_the_first_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = written(tmp_path / "1", "a"), written(tmp_path / "2", "b", current="b")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}:{written(tmp_path / '3', 'c', current='c')}")
    assert kubeconfig.current_context() == ("b", second)


def test_the_files_are_where_kubectl_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", ":/a/b:/c")
    assert kubeconfig.files() == [Path("/a/b"), Path("/c")]
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", "/home/x")
    assert kubeconfig.files() == [Path("/home/x/.kube/config")]
