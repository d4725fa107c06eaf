"""Certificates that a test makes: an authority, brokers and clients, some of them wrong on purpose."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)
_NONE = serialization.NoEncryption()


@dataclass
class Pair:
    """A certificate and its key, each in a file (PEM), and both in a third one."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates, all into one folder; valid for so many days, of -1 it has expired."""

    def __init__(self, folder: Path, name: str, *, days: float = 30) -> None:
        self._folder, self._name, self._days = folder, name, days
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _named(f"authority {name}")

    @cached_property
    def certificate(self) -> Path:
        """Its own, which whoever believes it needs."""
        found = _begun(self._subject, self._subject, self._key, days=self._days)
        found = found.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        found = found.add_extension(_usage(signs=True), critical=True)
        path = self._folder / f"{self._name}-ca.pem"
        path.write_bytes(_pem(found.sign(self._key, hashes.SHA256())))
        return path

    def pair(
        self, name: str, *, hosts: tuple[str, ...] = (), days: float = 30, key_password: str | None = None
    ) -> Pair:
        """A pair for `CN=name`, for brokers with the hosts that they are called by; of -1 days it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        found = _begun(_named(name), self._subject, key, days=days)
        found = found.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        found = found.add_extension(_usage(signs=False), critical=True)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        found = found.add_extension(authority, critical=False)
        if names:
            found = found.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = _pem(found.sign(self._key, hashes.SHA256()))
        hidden = _NONE if key_password is None else serialization.BestAvailableEncryption(key_password.encode())
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
        stem = self._folder / f"{self._name}-{name}"
        pair = Pair(stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem"))
        pair.certificate.write_bytes(certificate)
        pair.key.write_bytes(secret)
        pair.both.write_bytes(secret + certificate + self.certificate.read_bytes())
        return pair


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    begun = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    begun = begun.serial_number(x509.random_serial_number()).not_valid_before(now - 2 * _DAY)
    begun = begun.not_valid_after(now + days * _DAY)
    return begun.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
