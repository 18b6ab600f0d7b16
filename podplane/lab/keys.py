"""The lab's secrets that are no certificates: the administrator's token, and the key that signs ServiceAccounts' tokens."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from podplane.lab.folder import write_private

FILE = "keys.json"
TOKEN_BYTES, SIGNING_BYTES = 24, 32


class Keys(msgspec.Struct, frozen=True):
    """Both; they stay with the lab, so that tokens stay good over its stops."""

    admin: str
    signing: bytes


def load(folder: Path) -> Keys:
    """The lab's keys in this folder; made when there are none that can be read."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Keys)
    except (OSError, msgspec.MsgspecError):
        pass
    keys = Keys(secrets.token_urlsafe(TOKEN_BYTES), secrets.token_bytes(SIGNING_BYTES))
    folder.mkdir(mode=0o700, exist_ok=True)
    write_private(path, msgspec.json.encode(keys))
    return keys
