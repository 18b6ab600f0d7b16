"""Certificates and kubeconfigs of a cluster (Kubernetes: PKI certificates and requirements)."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority in a folder; what it issues is there, too."""

    def __init__(self, folder: Path, server: str) -> None:
        """`server` is the address of the API that kubeconfigs name."""
        self._folder, self._server = folder, server
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster")])
        builder = self._builder(self._name, self._key.public_key())
        certificate = builder.add_extension(x509.BasicConstraints(True, None), True).sign(self._key, hashes.SHA256())
        self.certificate = self._write("ca.crt", certificate.public_bytes(serialization.Encoding.PEM))

    def key(self, name: str) -> Path:
        """A private key alone, as ServiceAccounts' tokens are signed with."""
        return self._write(f"{name}.key", _private(ec.generate_private_key(ec.SECP256R1())))

    def issue(
        self, name: str, user: str, groups: Iterable[str] = (), ips: Iterable[str] = (), names: Iterable[str] = ()
    ) -> None:
        """`name`.crt and `name`.key: for a client that is this user of these groups, and for a server of these addresses and names."""
        key = ec.generate_private_key(ec.SECP256R1())
        words = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in groups]
        subject = x509.Name([*words, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        builder = self._builder(subject, key.public_key())
        alternatives = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName([*alternatives, *map(x509.DNSName, names)]), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._write(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        self._write(f"{name}.key", _private(key))

    def kubeconfig(self, name: str, user: str, groups: Iterable[str] = (), ips: Iterable[str] = ()) -> Path:
        """The way into the API for this user."""
        self.issue(name, user, groups, ips, [name] if ips else ())
        files = {kind: str(self._folder / f"{name}.{suffix}") for kind, suffix in (("certificate", "crt"), ("key", "key"))}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self._server, "certificate-authority": str(self.certificate)}}],
            "users": [{"name": "u", "user": {f"client-{kind}": path for kind, path in files.items()}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        return self._write(f"{name}.kubeconfig", json.dumps(content).encode())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
        return builder.serial_number(x509.random_serial_number())

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
