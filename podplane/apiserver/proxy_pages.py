"""A proxied page as it must be held to change its links: read whole and decoded as far as a limit, and encoded again as it is sent."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterable, Iterator

from podplane.kubeapi.streams import StreamError

Body = AsyncGenerator[bytes, None]
MAX_PAGE_BYTES = 1 << 20
"""Of a page whose links are changed, as it comes and decoded: nothing of it is sent before it is whole."""
PIECE_BYTES = 64 * 1024
"""So much is compressed in one step."""
CODINGS = {b"": None, b"identity": None, b"gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}
"""Content codings whose pages can be read (RFC 9110, 8.4.1), and what zlib calls their format; None is the page itself."""


async def read(body: Body, window: int | None) -> tuple[bytes, bytes | None]:
    """What has come of a page, and all of it decoded: None when it is empty, larger than the limit, or more than one member of gzip.

    StreamError, or zlib.error, when it is cut off or wrong.
    """
    came, page = bytearray(), bytearray()
    decoder = None if window is None else zlib.decompressobj(window)
    async for piece in body:
        came += piece
        page += piece if decoder is None else decoder.decompress(piece, MAX_PAGE_BYTES + 1 - len(page))
        if max(len(came), len(page)) > MAX_PAGE_BYTES or (decoder is not None and decoder.unused_data):
            return bytes(came), None
    if not came:
        return b"", None  # in a coding even an empty page has bytes, and a 304 must have none
    if decoder is not None and not decoder.eof:
        raise StreamError("the page is cut off")
    return bytes(came), bytes(page)


async def unchanged(came: bytes, body: Body) -> Body:
    """What has come of a body, and the rest of it."""
    try:
        yield came
        async for piece in body:
            yield piece
    finally:
        await body.aclose()


def encoded(parts: Iterable[bytes], window: int | None) -> Iterator[bytes]:
    """These parts in a coding, an empty one where a step of work made nothing to send."""
    encoder = None if window is None else zlib.compressobj(wbits=window)
    for part in parts:
        for start in range(0, max(1, len(part)), PIECE_BYTES):
            piece = part[start : start + PIECE_BYTES]
            yield piece if encoder is None else encoder.compress(piece)
    if encoder is not None:
        yield encoder.flush()
