"""Certificates that another process makes: what it made, and what becomes of it when it can't."""

from __future__ import annotations

import datetime
import os
import signal
from pathlib import Path

import pytest
from cryptography import x509

from podplane.lab import certificate_maker, certificates
from podplane.lab.certificate_maker import Certificates, Made
from podplane.lab.errors import LabError
from podplane.lab.spec import LabSpec

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_all_that_a_lab_needs_is_made_and_told(tmp_path: Path) -> None:
    spec = LabSpec(name="one", nodes=2, cluster_domain="example.test")
    made = certificate_maker.begin(lambda: certificates.of_lab(spec, tmp_path / "pki", NOW)).wait()
    assert made.api == Certificates(
        (tmp_path / "pki/ca.crt").read_text(), tmp_path / "pki/apiserver.crt", tmp_path / "pki/apiserver.key"
    )
    server = x509.load_pem_x509_certificate(made.api.certificate.read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc.example.test" in names.get_values_for_type(x509.DNSName)
    ips = {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1", "192.168.1.1", "10.96.0.1", "fd00:10:96::1"} <= ips
    own, key = made.localhost
    assert x509.load_pem_x509_certificate(own).subject.rfc4514_string() == "CN=localhost" and b"PRIVATE KEY" in key
    again = certificate_maker.begin(lambda: certificates.of_lab(spec, tmp_path / "pki", NOW)).wait()
    assert again.api.authority == made.api.authority, "kubeconfigs stay good"


def test_one_that_fails_says_why() -> None:
    def fails() -> Made:
        raise PermissionError(13, "Permission denied", "/pki")

    with pytest.raises(LabError, match=r"certificates can't be made: .*Permission denied: '/pki'"):
        certificate_maker.begin(fails).wait()


def test_one_that_is_killed_is_told_of_too() -> None:
    with pytest.raises(LabError, match="ended early"):
        certificate_maker.begin(lambda: os.kill(os.getpid(), signal.SIGKILL)).wait()  # type: ignore[arg-type, return-value]
