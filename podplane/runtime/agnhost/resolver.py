"""`agnhost dns-suffix`, `dns-server-list` and `etc-hosts`: how names are looked up in this container."""

from __future__ import annotations

from collections.abc import Sequence

from podplane.runtime.agnhost.common import Context, complain, say

RESOLV_CONF, HOSTS = "/etc/resolv.conf", "/etc/hosts"


def suffixes(context: Context) -> int:
    """Print the domains that names are searched in, with commas."""
    return _print_words(context, "search")


def servers(context: Context) -> int:
    """Print the DNS servers, with commas."""
    return _print_words(context, "nameserver")


def hosts(context: Context) -> int:
    """Print the hosts file, and an empty line."""
    context.ready()
    try:
        say(_read(HOSTS))
    except OSError as error:
        complain(f"{HOSTS}: {error.strerror}")
        return 1
    return 0


def _print_words(context: Context, keyword: str) -> int:
    context.ready()
    try:
        found = values(_read(RESOLV_CONF), keyword)
    except OSError as error:
        complain(f"{RESOLV_CONF}: {error.strerror}")
        return 1
    if not found:
        complain(f"{RESOLV_CONF}: there is no line that begins with {keyword}")
        return 1
    say(",".join(found))
    return 0


def values(text: str, keyword: str) -> Sequence[str]:
    """What a resolv.conf says after a keyword; of the search list, the last counts (resolv.conf(5))."""
    lines = [words[1:] for words in map(str.split, text.splitlines()) if words and words[0] == keyword]
    return lines[-1] if lines and keyword == "search" else [word for words in lines for word in words]


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
