"""What kind of text a body is, when the program does not say: Go's servers look at its beginning (net/http, DetectContentType).

The programs here answer with texts; of the other signatures of the MIME Sniffing Standard only "binary" is told.
"""

from __future__ import annotations

import re

TEXT, HTML, XML, BINARY = (
    "text/plain; charset=utf-8",
    "text/html; charset=utf-8",
    "text/xml; charset=utf-8",
    "application/octet-stream",
)
LOOKED_AT = 512
TAGS = b"!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P|!--"
_HTML = re.compile(rb"[\t\n\x0c\r ]*<(?:" + TAGS + rb")[ >]", re.IGNORECASE)
_XML = re.compile(rb"[\t\n\x0c\r ]*<\?xml")
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def kind(body: bytes) -> str:
    """The Content-Type of a body."""
    begin = body[:LOOKED_AT]
    if _HTML.match(begin):
        return HTML
    if _XML.match(begin):
        return XML
    return BINARY if _BINARY.search(begin) else TEXT
