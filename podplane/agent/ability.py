"""What of the settings this machine's kernel can do."""

from __future__ import annotations

import msgspec

from podplane.agent.denied import can_log
from podplane.agent.kernel import Kernel
from podplane.agent.settings import Settings


def as_the_kernel_can(settings: Settings, kernel: Kernel) -> Settings:
    """The settings without what the kernel lacks."""
    config = settings.network
    able = msgspec.structs.replace(
        config,
        bridge_family=config.bridge_family and kernel.has_bridge_family(),
        arp_family=config.arp_family and kernel.has_arp_family(),
        log_denied=config.log_denied and can_log(kernel),
        kernel=kernel.release(),
    )
    return msgspec.structs.replace(settings, network=able)
