"""The lab's certificate authority and the API server's certificate (X.509, ECDSA on P-256).

The authority is made once and stays with the lab, so that a kubeconfig stays good; the server's certificate is made at each start, for
the names and addresses that it then has.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podplane.lab.certificate_maker import Certificates, Made
from podplane.lab.folder import write_private
from podplane.lab.spec import LabSpec
from podplane.state.value import IPAddress

AUTHORITY_DAYS, SERVER_DAYS = 3650, 365
SLACK = datetime.timedelta(hours=1)
"""Clocks that are somewhat behind still find a new certificate valid."""
NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


def of_lab(spec: LabSpec, folder: Path, now: datetime.datetime) -> Made:
    """All that a lab with these settings needs; `folder` is that of its keys."""
    plan = spec.plan()
    addresses = (
        *LOOPBACK,
        *(ip for subnet in range(plan.subnets) for ip in plan.underlay_gateways(subnet)),
        *plan.kubernetes_ips(),
    )
    return Made(prepare(folder, names(spec.cluster_domain), addresses, now), of_localhost(now))


def names(cluster_domain: str) -> tuple[str, ...]:
    """The names of the API server: this machine, and the Service `kubernetes`."""
    return (*NAMES, f"{NAMES[-1]}.{cluster_domain}")


def prepare(folder: Path, server_names: Sequence[str], addresses: Sequence[IPAddress], now: datetime.datetime) -> Certificates:
    """The certificates for a server of these names and addresses, in this folder; what is missing is made.

    Shape of the folder: ca.crt, ca.key, apiserver.crt, apiserver.key; keys are for their owner only.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    authority, authority_key = _authority(folder, now)
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in server_names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(str(address))) for address in addresses]
    certificate = (
        _builder("kube-apiserver", key.public_key(), authority.subject, now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    found = Certificates(_pem(authority).decode(), folder / "apiserver.crt", folder / "apiserver.key")
    write_private(found.key, _private(key))
    write_private(found.certificate, _pem(certificate))
    return found


def of_localhost(now: datetime.datetime) -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1, ::1 and example.com, signed by itself, and its key, as PEM: the one that agnhost's image has."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    alternatives: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1")]
    alternatives += [x509.DNSName(text) for text in ("localhost", "example.com")]
    certificate = (
        _builder("localhost", key.public_key(), name, now, AUTHORITY_DAYS)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _private(key)


def _authority(folder: Path, now: datetime.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The lab's authority; a new one when there is none, or it doesn't last for another server's certificate."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        lasts = certificate.not_valid_after_utc > now + datetime.timedelta(days=SERVER_DAYS)
        if lasts and isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return certificate, key
    except (OSError, ValueError, TypeError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "podplane")])
    usage = x509.KeyUsage(*(text in ("key_cert_sign", "crl_sign", "digital_signature") for text in USAGES))
    certificate = (
        _builder("podplane", key.public_key(), name, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca.key", _private(key))
    write_private(folder / "ca.crt", _pem(certificate))
    return certificate, key


USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _builder(
    name: str, key: ec.EllipticCurvePublicKey, issuer: x509.Name, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
