"""Address and credentials of an API server: from the lab's folder, from a kubeconfig, or from inside a pod.

An `Access` is only a description; it opens nothing. Certificates come as PEM texts, so that it can be kept in one file.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the cluster's CA."""
TOKEN_SECONDS = 60.0
"""A token in a file is read again after so long: it is renewed before it ends."""


class AccessError(Exception):
    """No usable address or credentials; one line that says why."""


@dataclass(slots=True)
class Access:
    """Address of an API server and credentials of one user. `ca` empty means the machine's own certificate authorities."""

    host: str
    port: int
    token: str = ""
    ca: str = ""
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    insecure: bool = False
    prefix: str = ""
    _read_at: float = field(default=0.0, repr=False)

    @property
    def address(self) -> str:
        """host:port, as URLs have it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def bearer(self) -> str:
        """The token to send now; "" for none. AccessError when its file can't be read."""
        if self.token_file and time.monotonic() - self._read_at > TOKEN_SECONDS:
            try:
                self.token = Path(self.token_file).read_text().strip()
            except OSError as error:
                raise AccessError(f"the token file {self.token_file} can't be read: {error.strerror}") from None
            self._read_at = time.monotonic()
        return self.token

    def refused(self) -> None:
        """The server does not know the token (any more): its file is read again before the next request."""
        self._read_at = -math.inf

    def context(self) -> ssl.SSLContext:
        """A TLS context that trusts this server only. AccessError when the certificates are none."""
        import ssl  # who only passes a description on needs it not

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            elif self.ca:
                context.load_verify_locations(cadata=self.ca)
            else:
                context.load_default_certs()
            if self.certificate:
                with _files(self.certificate, self.key) as (certificate, key):
                    context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise AccessError(f"the certificates for {self.address} can't be used: {error}") from None
        return context


@contextlib.contextmanager
def _files(*texts: str) -> Iterator[list[str]]:
    """The texts in files that nobody else may read: OpenSSL takes a client's key from a file only."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, text in enumerate(texts):
            path = Path(folder, str(i))
            path.touch(0o600)
            path.write_text(text)
            paths.append(str(path))
        yield paths


def in_cluster(folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Access:
    """The access that a pod has. AccessError when this is none, or has no ServiceAccount's token."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise AccessError("this is no pod of a cluster: KUBERNETES_SERVICE_HOST is not set")
    try:
        ca = (folder / "ca.crt").read_text()
    except OSError as error:
        raise AccessError(f"{folder / 'ca.crt'} can't be read: {error.strerror}") from None
    access = Access(host, int(port), ca=ca, token_file=str(folder / "token"))
    access.bearer()
    return access


def from_kubeconfig(path: Path, context: str = "") -> Access:
    """The access of a kubeconfig's current context, or of another one. AccessError when there is none, or of a kind not known here."""
    import yaml  # costs commands that have no kubeconfig to read nothing

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AccessError(f"the kubeconfig {path} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(document, dict):
        raise AccessError(f"the kubeconfig {path} can't be read: it is no mapping")
    wanted = context or document.get("current-context") or ""
    chosen = _named(document, "contexts", wanted, path).get("context") or {}
    cluster = _named(document, "clusters", chosen.get("cluster"), path).get("cluster") or {}
    user = _named(document, "users", chosen.get("user"), path).get("user") or {} if chosen.get("user") else {}
    return _access(cluster, user, path)


def _named(document: Mapping[str, Any], kind: str, name: Any, path: Path) -> Mapping[str, Any]:
    for entry in document.get(kind) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    raise AccessError(f"the kubeconfig {path} has no {kind.removesuffix('s')} {name!r}")


def _access(cluster: Mapping[str, Any], user: Mapping[str, Any], path: Path) -> Access:
    url = urlsplit(str(cluster.get("server", "")))
    if url.scheme != "https" or not url.hostname:
        raise AccessError(f"the server {cluster.get('server')!r} in the kubeconfig {path} is no https URL")
    if "exec" in user or "auth-provider" in user:
        raise AccessError(
            f"the user in the kubeconfig {path} has its credentials from a program: give a token or a certificate"
        )
    relative = path.resolve().parent
    token_file = user.get("tokenFile") or ""
    access = Access(
        host=url.hostname,
        port=url.port or 443,
        token="" if token_file else user.get("token") or "",
        token_file=str(relative / token_file) if token_file else "",
        ca=_text(cluster, "certificate-authority", relative),
        certificate=_text(user, "client-certificate", relative),
        key=_text(user, "client-key", relative),
        server_name=cluster.get("tls-server-name") or "",
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        prefix=url.path.rstrip("/"),
    )
    access.bearer()
    return access


def _text(entry: Mapping[str, Any], name: str, relative: Path) -> str:
    """What `name` or `name`-data says: a PEM text; "" when neither is there."""
    try:
        if data := entry.get(f"{name}-data"):
            return base64.b64decode(data, validate=True).decode()
        return (relative / entry[name]).read_text() if entry.get(name) else ""
    except (OSError, binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise AccessError(f"{name} of the kubeconfig can't be read: {error}") from None
