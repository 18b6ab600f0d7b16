"""How quick a pod's network is to be, as its annotations say it: quantities of bit/s, for all that it receives and all that it sends.

Source: kubernetes/kubernetes, pkg/util/bandwidth (ExtractPodBandwidthResources), which kubelets and container engines go by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from podplane.model import quantity
from podplane.model.view import NO_LIMITS, Bandwidth

INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
LEAST, MOST = 1_000, 10**15
"""Bit/s: 1k and 1P."""
QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?", re.ASCII)


def limits(annotations: Mapping[str, str]) -> Bandwidth:
    """The limits of a pod with these annotations. ValueError when one makes no sense; it names it."""
    if INGRESS not in annotations and EGRESS not in annotations:
        return NO_LIMITS
    return Bandwidth(ingress_rate=_rate(annotations, INGRESS), egress_rate=_rate(annotations, EGRESS))


def _rate(annotations: Mapping[str, str], name: str) -> int:
    text = annotations.get(name)
    if text is None:
        return 0
    if not QUANTITY.fullmatch(text):
        raise ValueError(f"annotation {name}: {text!r} is no quantity, such as 10M")
    try:
        rate = math.ceil(quantity.parse(text))
    except ValueError as error:
        raise ValueError(f"annotation {name}: {error}") from None
    if trouble := why_out_of_range(rate):
        raise ValueError(f"annotation {name}: {text} {trouble}")
    return rate


def why_out_of_range(rate: int) -> str:
    """Why no pod can have this rate, in bit/s; "" when one can."""
    return "" if LEAST <= rate <= MOST else "is not within 1k and 1P bit/s"


def why_refused(bandwidth: Bandwidth) -> str:
    """Why no pod can have these limits, whoever asks for them; "" when one can."""
    trouble = trouble_of(bandwidth)
    return trouble and f"bandwidth: {trouble}"


def trouble_of(bandwidth: Bandwidth) -> str:
    """Likewise; it begins with the field's name, as the capability `bandwidth` of CNI has it."""
    for name in ("ingress", "egress"):
        rate, burst = getattr(bandwidth, f"{name}_rate"), getattr(bandwidth, f"{name}_burst")
        if rate and (trouble := why_out_of_range(rate)):
            return f"{name}Rate {rate} {trouble}"
        if burst < 0 or (burst and not rate):
            return f"{name}Burst {burst} " + ("is negative" if burst < 0 else f"makes no sense without {name}Rate")
    return ""
