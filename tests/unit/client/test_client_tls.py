"""How callers ask for TLS, and that wrong files are told at once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from certificates import Papers, ca

import ssgovern
from ssgovern.client.tls import FileDialler, dialler_of


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def test_each_way_to_say_it(papers: Papers) -> None:
    """Off, a CA's file, files, a context; the name that is checked is the one dialled."""
    assert dialler_of(False) is None
    for option in (
        papers.ca,
        str(papers.ca),
        ssgovern.Tls(papers.ca, papers.client_cert, papers.client_key),
        papers.listening(),
    ):
        dialler = dialler_of(option)
        assert dialler is not None
        assert dialler.trust("n1.example", 7420).name == "n1.example"
    named = dialler_of(ssgovern.Tls(papers.ca, server_name="registry.example"))
    assert named is not None
    assert named.trust("10.0.0.1", 7420).name == "registry.example"
    assert dialler_of(named) is named
    system = dialler_of(True)
    assert system is not None
    assert system.trust("a", 1).context.check_hostname


@pytest.mark.parametrize("option", ["", "/nowhere/ca.pem", ssgovern.Tls(key="k.pem")])
def test_what_cannot_be_used_is_refused_before_anything_is_dialled(option) -> None:
    """`connect` itself raises."""
    with pytest.raises(ssgovern.InvalidArgumentError):
        ssgovern.connect("127.0.0.1:1", tls=option)


def test_replaced_files_are_used_from_the_next_dial_on(
    papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    """What is worse than before is told and not used."""
    dialler = FileDialler(ssgovern.Tls(papers.ca))
    first = dialler.trust("a", 1).context
    assert dialler.trust("a", 1).context is first
    papers.ca.write_bytes(ca("another CA").cert + ca().cert)
    second = dialler.trust("a", 1).context
    assert second is not first
    assert len(second.get_ca_certs()) == 2
    papers.ca.write_text("nothing")
    with caplog.at_level(logging.WARNING, "ssgovern.client"):
        assert dialler.trust("a", 1).context is second
        assert dialler.trust("a", 1).context is second
    assert len(caplog.messages) == 1
