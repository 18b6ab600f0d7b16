"""An image in an archive, as the OCI image specification has it (image-layout.md, manifest.md, config.md)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.image.layer import LEVEL, compressed

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""Go's names of them, which images have, by those of uname(2)."""
MEDIA = "application/vnd.oci.image.{}.v1+{}"
CREATED = "1970-01-01T00:00:00Z"


def write(target: Path, name: str, machine: str, config: Mapping[str, Any], tars: Sequence[bytes], level: int = LEVEL) -> int:
    """Write an image of these layers (tar archives) for machines of this kind (`platform.machine()`); the bytes of all layers as they are
    sent, compressed."""
    layers = [(tar, compressed(tar, level)) for tar in tars]
    platform = {"architecture": ARCHITECTURES.get(machine, machine), "os": "linux"}
    root = {"type": "layers", "diff_ids": [_digest(tar) for tar, _ in layers]}
    blobs = [blob for _, blob in layers]
    blobs.append(_json({**platform, "created": CREATED, "config": config, "rootfs": root}))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA.format("manifest", "json"),
            "config": _descriptor(MEDIA.format("config", "json"), blobs[-1]),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob) for _, blob in layers],
        }
    )
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    entry = _descriptor(MEDIA.format("manifest", "json"), manifest) | {"platform": platform, "annotations": names}
    with tarfile.open(target, "w") as archive:
        _put(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _put(archive, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in dict.fromkeys((*blobs, manifest)):
            _put(archive, f"blobs/sha256/{_digest(blob).partition(':')[2]}", blob)
    return sum(len(blob) for _, blob in layers)


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": _digest(content), "size": len(content)}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
