"""TCP connections from a network namespace that this process is not in, and TLS on them with whoever answers."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl

from podplane.kernel.namespace import Namespace


class DialError(Exception):
    """No connection; one line that says to where, and why not in the kernel's words."""


async def dial(namespace: Namespace, host: str, port: int) -> socket.socket:
    """Connect to an address; the socket doesn't block. DialError when that can't be."""
    family, at = (socket.AF_INET6, f"[{host}]:{port}") if ":" in host else (socket.AF_INET, f"{host}:{port}")
    sock = None
    try:
        sock = namespace.run(socket.socket, family, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except OSError as error:
        if sock is not None:
            sock.close()
        why = os.strerror(error.errno).lower() if error.errno else str(error)  # asyncio puts its own words into strerror
        raise DialError(f"dial tcp {at}: connect: {why}") from None
    except ValueError:  # a name that DNS can't have, with an empty label, one of more than 63 bytes, or a NUL character
        if sock is not None:
            sock.close()
        raise DialError(f"dial tcp: lookup {host}: no such host") from None
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return sock


@functools.cache
def any_certificate() -> ssl.SSLContext:
    """TLS with any certificate, as probes of a kubelet and the proxy of kube-apiserver have it: pods have certificates of their own making.

    One for all: no authority is loaded, which takes tens of milliseconds, since none is asked.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
