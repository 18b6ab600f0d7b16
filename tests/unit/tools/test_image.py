"""podplane's image: what a layer is made of, its archive, and that podplane runs with nothing but its files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tools.image import __main__ as image
from tools.image import interpreter, oci, packages
from tools.image.layer import EXECUTABLE, Layer

EVERYTHING = """
import importlib, pkgutil, podplane
for one in pkgutil.walk_packages(podplane.__path__, "podplane."):
    if not one.name.endswith("__main__"):
        print(importlib.import_module(one.name).__name__)
"""
INSIDE = ("unshare", "--user", "--map-root-user", shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot")


def unpacked(layer: Layer) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(layer.tar()))


def extract(archive: tarfile.TarFile, folder: Path) -> None:
    """All as it is; Python before 3.11.4 knows no other way, and later ones warn when they are not told."""
    trusted = getattr(tarfile, "fully_trusted_filter", None)
    archive.extractall(folder, **({"filter": trusted} if trusted else {}))


def test_links_that_lead_to_a_file_are_copied_with_it(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/one.so.1.2").write_bytes(b"\x7fELF")
    (tmp_path / "usr/lib/one.so.1").symlink_to("one.so.1.2")
    (tmp_path / "lib").symlink_to("usr/lib")
    layer = Layer()
    layer.copy(tmp_path / "lib/one.so.1")
    members = {Path("/", one.name): one for one in unpacked(layer)}
    assert members[tmp_path / "lib"].linkname == "usr/lib"
    assert members[tmp_path / "usr/lib/one.so.1"].linkname == "one.so.1.2"
    assert members[tmp_path / "usr/lib/one.so.1.2"].isreg()
    assert tmp_path / "lib/one.so.1" not in members


def test_a_layer_says_nothing_of_who_made_it_and_when(tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_text("one")
    source.chmod(0o700)
    layers = Layer(), Layer()
    layers[0].copy(source)
    layers[0].put("/b", b"two")
    os.utime(source, (1, 1))
    layers[1].put("/b", b"two")
    layers[1].copy(source)
    assert layers[0].tar() == layers[1].tar()
    for member in unpacked(layers[0]):
        assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
        assert member.mode == (0o644 if member.name == "b" else EXECUTABLE)


def test_an_archive_has_each_layer_by_its_digest(tmp_path: Path) -> None:
    layers = Layer(), Layer()
    layers[0].put("/a", b"one")
    layers[1].put("/b", b"two")
    tars = [one.tar() for one in layers]
    target = tmp_path / "image.tar"
    sent = oci.write(target, "localhost/one:1", "aarch64", {"Cmd": ["/a"]}, tars)
    with tarfile.open(target) as archive:
        blobs = {one.name: content.read() for one in archive if (content := archive.extractfile(one)) is not None}

    def blob(descriptor: dict[str, str]) -> bytes:
        content = blobs[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert len(content) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
        return content

    (entry,) = json.loads(blobs["index.json"])["manifests"]
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/one:1"
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    assert config["config"] == {"Cmd": ["/a"]}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in tars]
    assert sum(len(blob(one)) for one in manifest["layers"]) == sent


def test_dependencies_are_those_of_dependencies_too() -> None:
    names = {one.name.lower() for one in packages.dependencies()}
    assert {"anyio", "click", "httpcore2", "truststore", "msgspec", "pyyaml"} <= names, (
        "truststore is needed by httpcore2 alone"
    )
    assert not names & {"podplane", "pytest", "hypothesis", "mypy", "ruff"}


def test_what_is_compiled_is_loaded_without_a_look_at_its_source(tmp_path: Path) -> None:
    layer = Layer()
    interpreter.compile_(layer, "/one.py", b"value = 1\n")
    interpreter.compile_(layer, "/template.py", b"value = {{ one }}\nelse\n")
    (path,) = layer.files()
    with unpacked(layer) as archive:
        extract(archive, tmp_path)
    (tmp_path / "one.py").write_text("value = 2\n")
    words = [sys.executable, "-c", "import one; print(one.value)"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n", path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the image."""
    if (done := subprocess.run([*INSIDE, "/", "true"], capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"user namespaces can't be made here: {done.stderr.strip()}")
    folder = tmp_path_factory.mktemp("root")
    for layer in image.layers():
        with unpacked(layer) as archive:
            extract(archive, folder)
    return folder


def inside(root: Path, *words: str, code: int = 0) -> str:
    """What a program of the image says."""
    done = subprocess.run([*INSIDE, str(root), *words], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_every_module_of_podplane_finds_in_the_image_what_it_imports(root: Path) -> None:
    found = inside(root, f"{packages.HOME}/bin/python", "-c", EVERYTHING).split()
    assert {f"podplane.{name}" for name in ("agent.node", "cli", "kernel.echo", "lab.lab")} <= {*found} and len(found) > 500


def test_the_command_of_the_image_is_podplane(root: Path) -> None:
    (command,) = image.config()["Entrypoint"]  # type: ignore[misc]
    assert "\nkind: ClusterRole\n" in inside(root, command, "agent", "rbac")
    assert "KUBERNETES_SERVICE_HOST is not set" in inside(root, command, "agent", code=2)


def test_the_image_brings_the_plugin(root: Path) -> None:
    if not (root / packages.SITE[1:] / "podplane/cni/plugin/podplane-cni").exists():
        pytest.skip("podplane was installed where no C compiler is")
    inside(root, f"{packages.HOME}/bin/podplane", "cni", "install", "--programs-only", "--bin-dir", "/tmp/bin")
    assert (root / "tmp/bin/podplane-cni").read_bytes().startswith(b"\x7fELF")
