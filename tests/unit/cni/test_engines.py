"""An installation says when containerd would not find it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from podplane.cli.cni import cni
from podplane.cni import engines

DEBIAN = """
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
"""
VERSION_3 = """
version = 3
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dir = ""
  bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
  conf_dir = "/etc/my networks"
"""


def notes(folder: Path, text: str | bytes, bin_dir: str = "/opt/cni/bin", conf_dir: str = "/etc/cni/net.d") -> str:
    path = folder / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = engines.notes(Path(bin_dir), Path(conf_dir), path)  # of this machine's networks, too
    return "\n".join(line for line in said if str(path) in line).replace(str(path), "FILE")


def test_another_folder_is_named_with_the_command_that_installs_there(tmp_path: Path) -> None:
    assert notes(tmp_path, DEBIAN) == "containerd looks elsewhere, says FILE: `podplane cni install --bin-dir /usr/lib/cni`"
    assert notes(tmp_path, DEBIAN, "/usr/lib/cni") == ""
    assert notes(tmp_path, VERSION_3).endswith(": `podplane cni install --conf-dir '/etc/my networks'`")
    assert notes(tmp_path, VERSION_3, "/usr/lib/cni", "/etc/my networks/") == ""
    assert "--bin-dir /opt/cni/bin --conf-dir" in notes(tmp_path, VERSION_3, "/else")


@pytest.mark.parametrize(
    "text", ["", "version = 2", "plugins = 5", "[plugins.'io.containerd.grpc.v1.cri']\ncni = 1", "=", b"\xff"]
)
def test_where_nothing_is_said_nothing_is(tmp_path: Path, text: str | bytes) -> None:
    assert notes(tmp_path, text) == ""
    assert engines.notes(tmp_path, tmp_path, tmp_path / "none") == []


def test_a_network_that_pods_get_until_podplanes_is_there_is_named(tmp_path: Path) -> None:
    conf_dir, none = tmp_path / "net.d", tmp_path / "none"
    assert engines.notes(tmp_path, conf_dir, none) == []
    conf_dir.mkdir()
    for name in ("README", "99-loopback.conf", "87-podman-bridge.conflist"):
        (conf_dir / name).touch()
    (said,) = engines.notes(tmp_path, conf_dir, none)
    assert said.startswith(f"{conf_dir}/87-podman-bridge.conflist is the first network there, and") and "move it away" in said
    (conf_dir / "10-podplane.conflist").touch()
    assert engines.notes(tmp_path, conf_dir, none) == []


def test_install_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text(DEBIAN)
    monkeypatch.setattr("podplane.cni.engines.CONTAINERD", tmp_path / "config.toml")
    words = ["install", "--bin-dir", f"{tmp_path}/bin", "--conf-dir", f"{tmp_path}/conf"]
    done = CliRunner().invoke(cni, words)
    assert done.exit_code == 0 and "--bin-dir /usr/lib/cni --conf-dir /etc/cni/net.d`" in done.stdout
