"""Addresses of the rig, by IP version: a cluster has one of these families, or both, the primary one first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Networks of one IP version, as text."""

    machines: str
    """Where the number of a machine goes is {}."""
    length: int
    pods: str
    services: str
    dns: str
    """The address of the cluster's DNS."""

    def machine(self, number: int) -> str:
        """The address of a machine: the hub is 1, the control plane 10, nodes follow."""
        return self.machines.format(number)

    @property
    def hub(self) -> str:
        return self.machine(1)

    @property
    def control(self) -> str:
        return self.machine(10)

    @property
    def kubernetes(self) -> str:
        """The address of the API's Service: the first one."""
        return self.services.rpartition("/")[0].removesuffix("0") + "1"

    @property
    def any_address(self) -> str:
        return "::" if self.is_6 else "0.0.0.0"

    @property
    def is_6(self) -> bool:
        return ":" in self.pods


V4 = Family("192.168.100.{}", 24, "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10")
V6 = Family("fd00:192:168:100::{}", 64, "fd00:10:244::/48", "fd00:10:96::/112", "fd00:10:96::a")


def url(host: str, port: int) -> str:
    """That of an API server: an IPv6 address stands in brackets (RFC 3986)."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
