"""Files of TLS: what cannot be used is told by name, with what to do about it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates import Papers, ca, node_certificate
from cryptography.hazmat.primitives import serialization

from ssgovern.errors import InvalidArgumentError
from ssgovern.transport.tls_context import (
    Shown,
    dialling_context,
    listening_context,
    marks_of,
    pinned_context,
)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def fault(shown: Shown | None = None, authority: str | None = None) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        dialling_context(authority, shown)
    return caught.value


def test_contexts_demand_what_they_should(papers: Papers) -> None:
    """A dialler checks names and wants TLS 1.2; a listener asks for certificates if told to."""
    dialling = dialling_context(str(papers.ca), papers.client)
    assert dialling.check_hostname
    assert dialling.verify_mode is ssl.CERT_REQUIRED
    plain, strict = papers.listening(), papers.listening(ssl.CERT_REQUIRED)
    assert (plain.verify_mode, strict.verify_mode) == (ssl.CERT_NONE, ssl.CERT_REQUIRED)
    pinned = pinned_context(papers.cert.read_text(), papers.node)
    assert not pinned.check_hostname
    assert pinned.verify_mode is ssl.CERT_REQUIRED
    for context in (dialling, plain, strict, pinned):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_file_that_is_not_there_is_named(papers: Papers) -> None:
    """Each of the three says which it is."""
    nowhere = str(papers.directory / "nowhere.pem")
    for field, error in {
        "ca": fault(authority=nowhere),
        "cert": fault(Shown(nowhere, str(papers.key)), str(papers.ca)),
        "key": fault(Shown(str(papers.cert), nowhere), str(papers.ca)),
    }.items():
        assert error.message == f"{nowhere}: cannot be read: No such file or directory"
        assert error.fields["field"] == field


def test_files_of_another_kind_are_named(papers: Papers) -> None:
    """A key where a certificate should be, and the other way round."""
    swapped = fault(Shown(str(papers.key), str(papers.cert)), str(papers.ca))
    assert swapped.message == f"{papers.key}: holds no certificate in PEM form (-----BEGIN …)"
    certificate = fault(Shown(str(papers.cert), str(papers.cert)), str(papers.ca))
    assert certificate.message == f"{papers.cert}: holds no key in PEM form (-----BEGIN …)"
    assert "holds no certificate" in fault(authority=str(papers.key)).message


def test_damaged_files_are_named(papers: Papers) -> None:
    """What looks like PEM and is not."""
    for path in (papers.cert, papers.ca):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], "AAAA", lines[-1]]))
    assert str(papers.cert) in fault(papers.node).message
    assert str(papers.ca) in fault(authority=str(papers.ca)).message


def test_a_key_of_another_certificate_is_told(papers: Papers) -> None:
    """Both files are named."""
    mixed = fault(Shown(str(papers.cert), str(papers.client_key)), str(papers.ca))
    assert "this is not the key of the certificate in" in mixed.message
    assert str(papers.cert) in mixed.message
    assert str(papers.client_key) in mixed.message
    assert mixed.fields["field"] == "key"


def test_an_encrypted_key_is_refused_and_its_password_not_asked_for(papers: Papers) -> None:
    """A node has no terminal."""
    key = serialization.load_pem_private_key(node_certificate().key, None)
    papers.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    assert "the key is encrypted" in fault(papers.node).message


def test_a_listener_checks_its_ca(papers: Papers) -> None:
    """It is read when certificates are asked for."""
    papers.ca.write_bytes(ca().key)
    with pytest.raises(InvalidArgumentError, match="holds no certificate"):
        papers.listening(ssl.CERT_OPTIONAL)
    listening_context(papers.node, None)


def test_marks_tell_of_changes(papers: Papers) -> None:
    """A file that was replaced, or is gone, has other marks."""
    paths = [str(papers.cert), str(papers.key)]
    before = marks_of(paths)
    assert marks_of(paths) == before
    papers.cert.write_bytes(papers.cert.read_bytes() + b"\n")
    changed = marks_of(paths)
    assert changed[0] != before[0]
    assert changed[1] == before[1]
    papers.cert.unlink()
    assert marks_of(paths)[0] is None
