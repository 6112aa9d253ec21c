"""Certificates: what is in one, and a CA of one's own for trying things out.

Knows X.509 and no socket, no configuration and no clock: the time is handed in. Invariants: what
is made is strictly valid (RFC 5280: key usages, key identifiers, names), ECDSA over P-256; the
key of the CA can sign no other CA; keys are written unencrypted, readable by their owner alone.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssgovern.errors import InvalidArgumentError

CA_DAYS = 3650
LEAF_DAYS = 397
"""What clients of all kinds accept at most."""
_SKEW = datetime.timedelta(minutes=10)
"""Clocks of other machines may be behind."""


class Facts(NamedTuple):
    """What one certificate says."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """Hosts and addresses it is for."""
    not_before: datetime.datetime
    not_after: datetime.datetime
    is_ca: bool
    usages: tuple[str, ...]
    """`server`, `client`; empty: any."""
    sha256: str
    pem: str


class Made(NamedTuple):
    """A certificate and its key, in PEM form."""

    cert: bytes
    key: bytes


# --- reading -------------------------------------------------------------------------------


def read_certificates(path: str) -> list[Facts]:
    """Return what the certificates of a file say, in their order. Raises InvalidArgumentError."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror or error}") from None
    return parse_certificates(text, path)


def parse_certificates(text: bytes, source: str) -> list[Facts]:
    """Return what certificates in PEM form say. Raises InvalidArgumentError."""
    try:
        return [_facts(each) for each in x509.load_pem_x509_certificates(text)]
    except ValueError:
        raise InvalidArgumentError(
            f"{source}: holds no certificate in PEM form that can be understood"
        ) from None


def _facts(certificate: x509.Certificate) -> Facts:
    extensions = certificate.extensions
    names: list[str] = []
    usages: list[str] = []
    is_ca = False
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names += value.get_values_for_type(x509.DNSName)
            names += map(str, value.get_values_for_type(x509.IPAddress))
        elif isinstance(value, x509.ExtendedKeyUsage):
            known = {
                ExtendedKeyUsageOID.SERVER_AUTH: "server",
                ExtendedKeyUsageOID.CLIENT_AUTH: "client",
            }
            usages += [known.get(usage, usage.dotted_string) for usage in value]
        elif isinstance(value, x509.BasicConstraints):
            is_ca = value.ca
    return Facts(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        tuple(names),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        is_ca,
        tuple(usages),
        certificate.fingerprint(hashes.SHA256()).hex(),
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
    )


# --- making --------------------------------------------------------------------------------


def make_ca(name: str, now: datetime.datetime, days: int = CA_DAYS) -> Made:
    """Return a CA that may sign certificates, and no other CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), now, now + datetime.timedelta(days=days))
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return _made(certificate, key)


def issue(
    ca: Made,
    name: str,
    hosts: Sequence[str],
    now: datetime.datetime,
    *,
    server: bool,
    days: int = LEAF_DAYS,
) -> Made:
    """Return a certificate that a CA of `make_ca` signed, for a client or, with hosts, a node.

    A node's is for both directions: nodes dial each other. Raises InvalidArgumentError.
    """
    ca_cert = x509.load_pem_x509_certificate(ca.cert)
    ca_key = serialization.load_pem_private_key(ca.key, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey), "made by make_ca"
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + datetime.timedelta(days=days), ca_cert.not_valid_after_utc)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if server:
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_name(name), ca_cert.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                ca_cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
    return _made(builder.sign(ca_key, hashes.SHA256()), key)


def write_made(made: Made, cert: Path, key: Path) -> None:
    """Write both files. Raises OSError, FileExistsError among them: nothing is overwritten."""
    for path, text, mode in ((key, made.key, 0o600), (cert, made.cert, 0o644)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(name: str) -> x509.Name:
    if not name or len(name) > 64 or not name.isprintable():
        raise InvalidArgumentError(f"{name!r}: expected 1 to 64 printable characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    labels = host.removeprefix("*.").split(".")
    if not all(
        label and len(label) <= 63 and label.isascii() and label.replace("-", "").isalnum()
        for label in labels
    ):
        raise InvalidArgumentError(f"{host!r}: expected the name or the address of a host")
    return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _made(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Made:
    return Made(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
