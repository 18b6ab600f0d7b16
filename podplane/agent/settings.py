"""Settings of an agent: what all features share, and one frozen class of each feature that has settings of its own."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from podplane.dns.settings import DnsSettings
from podplane.hostports.settings import HostPortSettings
from podplane.model.config import NetworkConfig
from podplane.nodes.settings import NodeSettings
from podplane.policy.settings import PolicySettings
from podplane.services.settings import ServiceSettings


class SettingsError(ValueError):
    """The settings are not as they should be; the text says where, and what."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A feature gets the parts that its row names (`Feature.settings`)."""

    network: NetworkConfig
    nodes: NodeSettings = NodeSettings()
    services: ServiceSettings = ServiceSettings()
    hostports: HostPortSettings = HostPortSettings()
    policies: PolicySettings = PolicySettings()
    dns: DnsSettings = DnsSettings()


def decode(content: Mapping[str, object]) -> Settings:
    """Settings from a mapping, as a configuration file has them: `{"network": {…}, "hostports": {"enabled": false}}`.

    SettingsError for a key that is unknown or missing, and for a value that is not as it should be; it names the key.
    """
    try:
        return msgspec.convert(content, Settings)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        where = place.strip("`").removeprefix("$").strip(".")
        raise SettingsError(f"settings{f' of {where}' if where else ''}: {what}") from None
