"""Links of proxied pages: which are changed, and that all else is left as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver.proxy_links import LINKS, moved, rewritten

PREFIX, HOSTS = "/api/v1/p/proxy", ("10.0.0.1:80", "localhost:8001")


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
        ('<a data-href="/x" title=\'href="/y"\' href="/z">', '<a data-href="/x" title=\'href="/y"\' href="{}/z">'),
    ],
)
def test_a_page_keeps_all_but_its_links(page: str, expected: str) -> None:
    assert rewritten(page.encode(), PREFIX, HOSTS).decode() == expected.replace("{}", PREFIX)


@pytest.mark.parametrize(("tag", "name"), [(tag, name) for tag, names in LINKS.items() for name in sorted(names)])
def test_every_kind_of_link_is_changed(tag: str, name: str) -> None:
    assert rewritten(f'<{tag} {name}="/x">'.encode(), PREFIX, HOSTS) == f'<{tag} {name}="{PREFIX}/x">'.encode()


@given(st.binary() | st.text(alphabet="<>ahref= \"'/!-\n&;x").map(str.encode))
def test_whatever_a_page_holds_only_prefixes_are_added(page: bytes) -> None:
    assert rewritten(page, PREFIX, ()).replace(PREFIX.encode(), b"") == page.replace(PREFIX.encode(), b"")


@given(st.binary())
def test_a_page_without_a_tag_is_left_byte_by_byte(page: bytes) -> None:
    page = page.replace(b"<", b"")
    assert rewritten(page, PREFIX, HOSTS) == page
