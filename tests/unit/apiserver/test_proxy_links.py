"""Links of proxied pages: which are changed, and that all else is left as it is."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.proxy_links import LINKS, MAX_LINK_CHARS, moved, rewritten
from podplane.apiserver.proxy_pages import MAX_PAGE_BYTES

PREFIX, HOSTS = "/api/v1/p/proxy", ("10.0.0.1:80", "localhost:8001")


def changed(page: bytes, hosts: Collection[str] = HOSTS) -> bytes:
    """A page with its links moved."""
    return b"".join(rewritten(page, PREFIX, hosts))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("/x", "/api/v1/p/proxy/x"),
        ("/", "/api/v1/p/proxy/"),
        ("/x/?a=b&c#d", "/api/v1/p/proxy/x/?a=b&c#d"),
        ("http://10.0.0.1:80/x", "/api/v1/p/proxy/x"),
        ("//localhost:8001/x", "/api/v1/p/proxy/x"),
        ("http://10.0.0.1:80", "http://10.0.0.1:80"),
        ("/api/v1/p/proxy/x", "/api/v1/p/proxy/x"),
        ("x", "x"),
        ("../x", "../x"),
        ("?a", "?a"),
        ("#a", "#a"),
        ("", ""),
        ("http://example.org/x", "http://example.org/x"),
        ("mailto:/x", "/api/v1/p/proxy/x"),
        ("http://[/x", "http://[/x"),
        ("/x\ny", "/x\ny"),
        (" /x", " /x"),
        ("/" + "x" * MAX_LINK_CHARS, "/" + "x" * MAX_LINK_CHARS),
    ],
)
def test_a_link_of_the_server_is_below_the_prefix(link: str, expected: str) -> None:
    assert moved(link, PREFIX, HOSTS) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a href="/x">', '<a href="{}/x">'),
        ("<A class=b HREF = '/x' >t</A>", "<A class=b HREF = '{}/x' >t</A>"),
        ("<img src=/x alt=/y>", "<img src={}/x alt=/y>"),
        ('<input src="/a" formaction="/b" value="/c"/>', '<input src="{}/a" formaction="{}/b" value="/c"/>'),
        (
            '<script src="/x">"<a href=\'/y\'>"</script>\n<a\nhref="/z">',
            '<script src="{}/x">"<a href=\'/y\'>"</script>\n<a\nhref="{}/z">',
        ),
        ('<!-- <a href="/x"> --><p href="/y">/z', '<!-- <a href="/x"> --><p href="/y">/z'),
        ('\r\né<a href="/x">é', '\r\né<a href="{}/x">é'),
        ('<a href="/x', '<a href="/x'),
        ("<!--><a href=/x>", "<!--><a href={}/x>"),
        ("<!-- a --- b --!><a href=/x>", "<!-- a --- b --!><a href={}/x>"),
        ("<!-- <a href=/x>", "<!-- <a href=/x>"),
        ("<![a b]><a href=/x>", "<![a b]><a href={}/x>"),
        ("<?php <a href=/x><a href=/x>", "<?php <a href=/x><a href={}/x>"),
        ("<<a href=/x> < 1 </1 <a href=/y>", "<<a href={}/x> < 1 </1 <a href=/y>"),
        ("<title><a href=/x></TITLE ><a href=/x>", "<title><a href=/x></TITLE ><a href={}/x>"),
        ("<script></scripts><a href=/x>", "<script></scripts><a href=/x>"),
        ("<plaintext><a href=/x>", "<plaintext><a href=/x>"),
        ("</a href=/x><a/href=/x/><a href=/x>", "</a href=/x><a/href={}/x/><a href={}/x>"),
        ("<a href><a href=><a =href=/x href = /y>", "<a href><a href=><a =href=/x href = {}/y>"),
        ("<b title=\"<a href=/x>\"><a title='>' href=/x>", "<b title=\"<a href=/x>\"><a title='>' href={}/x>"),
        ('<a data-href="/x" title=\'href="/y"\' href="/z">', '<a data-href="/x" title=\'href="/y"\' href="{}/z">'),
    ],
)
def test_a_page_keeps_all_but_its_links(page: str, expected: str) -> None:
    assert changed(page.encode()).decode() == expected.replace("{}", PREFIX)


@pytest.mark.parametrize(("tag", "name"), [(tag, name) for tag, names in LINKS.items() for name in sorted(names)])
def test_every_kind_of_link_is_changed(tag: str, name: str) -> None:
    assert changed(f'<{tag} {name}="/x">'.encode()) == f'<{tag} {name}="{PREFIX}/x">'.encode()


@given(st.binary() | st.text(alphabet="<>ahref= \"'/!-\n&;x").map(str.encode))
def test_whatever_a_page_holds_only_prefixes_are_added(page: bytes) -> None:
    assert changed(page, ()).replace(PREFIX.encode(), b"") == page.replace(PREFIX.encode(), b"")


@given(st.binary())
def test_a_page_without_a_tag_is_left_byte_by_byte(page: bytes) -> None:
    page = page.replace(b"<", b"")
    assert changed(page) == page


BEGINNINGS = ("", "<html><a ", "<!--", "<script>", "<title>", "<a href='", "<b ", "</b ")
REPEATED = (
    *(
        "<a ",
        "<a <",
        "<",
        "< ",
        "</",
        "</a ",
        "</1",
        "<!",
        "<?",
        "<!--",
        "<!---",
        "--!",
        "-",
        "<a href='",
        '<a href="',
        "<a href=/ ",
    ),
    *(
        "<a href=/>",
        "</script",
        "<script>",
        "<title></titl",
        "a=",
        "<a b\n",
        "<a =",
        "/",
        "<a   ",
        "=",
        "'",
        "<plaintext",
        "<a href=a:/>",
    ),
)


@pytest.mark.parametrize("repeated", REPEATED)
def test_no_page_takes_more_steps_than_it_has_bytes(repeated: str) -> None:
    """Each of these took time with the square of its length, hours for a page as large as the limit, or makes a step of little."""
    for beginning in BEGINNINGS:
        page = (beginning + repeated * (MAX_PAGE_BYTES // 8 // len(repeated))).encode()
        assert sum(1 for _ in rewritten(page, PREFIX, HOSTS)) <= len(page) + 1


@given(st.binary() | st.text(alphabet="<>ahref= \"'/!-\n&;x").map(str.encode))
def test_every_page_is_looked_at_in_steps(page: bytes) -> None:
    assert sum(1 for _ in rewritten(page, PREFIX, HOSTS)) <= len(page) + 1
