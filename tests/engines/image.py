"""An image made on the spot: one static program, in an archive as the OCI image specification (image-layout.md) has it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from podplane.cni.plugin import build

NAME = "localhost/podplane-probe:1"
PROGRAM = "probe"
SOURCE = Path(__file__).with_name("probe.c")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
"""Go's names of them, which images have, by those of uname(2)."""
MEDIA = "application/vnd.oci.image.{}.v1+{}"


def compiled(folder: Path) -> Path:
    """The program; the test is left out where no compiler links it statically."""
    target, problem = folder / PROGRAM, "there is none"
    for command in build.compilers():
        if "-static" in command:
            done = subprocess.run([*command, "-Os", "-s", "-o", target, SOURCE], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return target
            problem = done.stderr.strip()
    pytest.skip(f"a C compiler that links statically is needed (gcc and libc6-dev): {problem}")


def archive(program: Path, machine: str) -> Path:
    """An archive beside the program, with an image of it alone, for machines of this kind (`platform.machine()`)."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _put(files, PROGRAM, program.read_bytes(), 0o755)
    content = layer.getvalue()
    platform = {"architecture": ARCHITECTURE.get(machine, machine), "os": "linux"}
    root = {"type": "layers", "diff_ids": [_digest(content)]}
    config = _json({**platform, "config": {"Entrypoint": [f"/{PROGRAM}"], "Cmd": ["pause"]}, "rootfs": root})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA.format("manifest", "json"),
            "config": _descriptor(MEDIA.format("config", "json"), config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", content)],
        }
    )
    names = {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME}
    entry = _descriptor(MEDIA.format("manifest", "json"), manifest) | {"platform": platform, "annotations": names}
    target = program.with_suffix(".tar")
    with tarfile.open(target, "w") as files:
        _put(files, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _put(files, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in (content, config, manifest):
            _put(files, f"blobs/sha256/{_digest(blob).partition(':')[2]}", blob)
    return target


def _put(files: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    files.addfile(member, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": _digest(content), "size": len(content)}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
