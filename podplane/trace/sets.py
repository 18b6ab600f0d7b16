"""Sets and maps of nf_tables, found by the bytes of a register.

Elements with networks are kept by the masks of their parts: a key is looked up once for each combination of prefix lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from podplane.state import nft_types as types
from podplane.state.nft import Element, Part, Set


class Index:
    """The elements of one set."""

    def __init__(self, value: Set, elements: Iterable[Element] = ()) -> None:
        self.value = value
        self.key_size = types.size(value.key)
        self.data_size = 0 if value.data in ((), ("verdict",)) else types.size(value.data)
        self.is_opaque = False
        """Are there elements that no value describes?"""
        self._elements = list(elements)
        self._exact: dict[bytes, Element] | None = None
        self._masked: dict[bytes, dict[bytes, Element]] = {}

    def add(self, element: Element) -> None:
        """One more element."""
        self._elements.append(element)
        self._exact = None

    def _build(self) -> dict[bytes, Element]:
        exact: dict[bytes, Element] = {}
        self._masked = {}
        for element in self._elements:
            key = types.key_bytes(self.value.key, element.key)
            mask = self._mask(element.key) if self.value.interval else b""
            if mask.strip(b"\xff"):
                self._masked.setdefault(mask, {})[_and(key, mask)] = element
            else:
                exact[key] = element
        self._exact = exact
        return exact

    def _mask(self, key: tuple[Part, ...]) -> bytes:
        """Ones where the key of an element counts."""
        masks = []
        for name, part in zip(self.value.key, key, strict=True):
            is_network = isinstance(part, IPv4Network | IPv6Network)
            mask = part.netmask.packed if is_network else b"\xff" * types.TYPES[name].size  # type: ignore[union-attr]  # a network
            masks.append(mask + (b"\xff" * (-types.TYPES[name].size & 3) if len(self.value.key) > 1 else b""))
        return b"".join(masks)

    def find(self, key: bytes) -> Element | None:
        """The element of this key."""
        exact = self._build() if self._exact is None else self._exact
        found = exact.get(key)
        if found is not None or not self._masked:
            return found
        for mask, elements in self._masked.items():
            found = elements.get(_and(key, mask))
            if found is not None:
                return found
        return None

    def data(self, element: Element) -> bytes:
        """What a map loads for one of its elements."""
        assert isinstance(element.data, tuple)
        return types.key_bytes(self.value.data, element.data)


def _and(key: bytes, mask: bytes) -> bytes:
    return (int.from_bytes(key, "big") & int.from_bytes(mask, "big")).to_bytes(len(key), "big")
