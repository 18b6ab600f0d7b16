"""core/v1 ConfigMap."""

from __future__ import annotations

import msgspec

from podplane.model.objects import Metadata, Model


class ConfigMap(Model, frozen=True):
    """Texts by key; what is in `binary_data` is only named."""

    metadata: Metadata = Metadata()
    data: dict[str, str] | None = None
    binary_data: dict[str, msgspec.Raw] | None = None
