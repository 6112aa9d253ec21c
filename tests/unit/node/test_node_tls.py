"""TLS of a node: what its files must be, and that they may be replaced as it runs."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import HERE, Papers, ca, client_certificate, node_certificate, now

from ssgovern.errors import ConfigError, InvalidArgumentError
from ssgovern.node.certificates import issue, make_ca, parse_certificates, read_certificates
from ssgovern.node.config import TlsConfig
from ssgovern.node.metrics_tls import TlsMetrics
from ssgovern.node.tls import NodeTls

DAY_MS = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.ms = int(now().timestamp() * 1000)

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def config_of(papers: Papers, client_auth: str = "none") -> TlsConfig:
    said = {"cert": str(papers.cert), "key": str(papers.key), "ca": str(papers.ca)}
    return TlsConfig.model_validate({**said, "client_auth": client_auth})


def opened(papers: Papers, client_auth: str = "none", clock: Callable[[], int] | None = None):
    return NodeTls(config_of(papers, client_auth), clock or Clock())


def another() -> object:
    return issue(ca(), "renewed", HERE, now(), server=True, days=90)


# --- the start -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "client_auth", "words"),
    [
        (
            node_certificate(expired=True),
            "none",
            r"tls\.cert: .*node\.pem: the certificate expired",
        ),
        (client_certificate(), "none", "may not be used by a server"),
    ],
)
def test_a_certificate_that_cannot_serve_is_refused(
    made, client_auth: str, words: str, papers: Papers
) -> None:
    """The key of the configuration, the file and what is wrong are told."""
    papers.replace(made)
    with pytest.raises(ConfigError, match=words):
        opened(papers, client_auth)


def test_a_certificate_of_the_future_is_refused(papers: Papers) -> None:
    """A machine whose clock is wrong says so at once."""
    clock = Clock()
    clock.ms -= 2 * DAY_MS
    with pytest.raises(ConfigError, match=r"is not valid before .* clock right"):
        opened(papers, clock=clock)


def test_a_node_knows_itself_by_its_key_and_others_by_their_names(papers: Papers) -> None:
    """Only where it listens itself does the name of the certificate not matter."""
    tls = opened(papers)
    tls.set_here("0.0.0.0", 7420)
    mine = tls.material.myself
    assert tls.trust("127.0.0.1", 7420).context is mine
    assert tls.trust("0.0.0.0", 7420).context is mine
    for host, port in (("127.0.0.1", 7421), ("10.0.0.2", 7420)):
        trust = tls.trust(host, port)
        assert trust == (tls.material.dialling, host)
        assert trust.context.check_hostname


@pytest.mark.parametrize(("client_auth", "shown"), [("none", False), ("optional", True)])
def test_nodes_show_certificates_where_clients_may(
    client_auth: str, shown: bool, papers: Papers
) -> None:
    """`optional` is so for clients alone."""
    assert opened(papers, client_auth).listener.peers_show_certificates is shown


# --- replaced files ------------------------------------------------------------------------


def test_replaced_files_are_taken_up_when_they_are_the_same_twice(papers: Papers) -> None:
    """Certificate and key are never replaced at once: a moment is waited before both are read."""
    tls = opened(papers)
    first = tls.material
    made = another()
    papers.cert.write_bytes(made.cert)
    tls.look()
    papers.key.write_bytes(made.key)
    tls.look()
    assert tls.material is first
    assert tls.reloads_failed == 0
    tls.look()
    assert tls.reloads == 1
    assert tls.material.facts.subject == "CN=renewed"
    assert tls.listener._context() is tls.material.listening
    tls.look()
    assert tls.reloads == 1


def test_files_that_cannot_be_used_change_nothing_and_are_told_of(
    papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that is missing keeps the old pair in use; the right one is taken up later."""
    tls = opened(papers)
    first = tls.material
    made = another()
    papers.cert.write_bytes(made.cert)
    with caplog.at_level(logging.ERROR, "ssgovern.tls"):
        for _ in range(4):
            tls.look()
    assert tls.material is first
    assert (tls.reloads, tls.reloads_failed) == (0, 1)
    (told,) = caplog.messages
    assert "this is not the key of the certificate" in told
    papers.key.write_bytes(made.key)
    tls.look()
    tls.look()
    assert (tls.reloads, tls.reloads_failed) == (1, 1)


def test_the_end_of_a_certificate_is_told_in_time_once_a_day(
    papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    """Two weeks before, or the last quarter of what lives shorter; and what has ended."""
    papers.replace(issue(ca(), "long", HERE, now(), server=True, days=100))
    clock = Clock()
    tls = opened(papers, clock=clock)
    for days, told in ((0, 0), (85, 0), (2, 1), (0.5, 1), (0.6, 2), (20, 3)):
        clock.ms += int(days * DAY_MS)
        tls.look()
        tls.look()
        assert len(caplog.messages) == told, days
    assert " ends at " in caplog.messages[0]
    assert " ended at " in caplog.messages[2]


def test_what_is_told_to_prometheus(papers: Papers) -> None:
    """When the certificate ends, and how often files were taken up and refused."""
    tls = opened(papers)
    samples = {s.name: s.value for family in TlsMetrics(tls)() for s in family.samples}
    assert samples["ssgovern_tls_certificate_expiry_timestamp_seconds"] == pytest.approx(
        (now() + datetime.timedelta(days=1)).timestamp(), abs=600
    )
    assert samples["ssgovern_tls_reloads_total"] == 0
    assert samples["ssgovern_tls_handshakes_failed_total"] == 0


# --- certificates --------------------------------------------------------------------------


def test_what_is_made_says_what_it_is_for() -> None:
    """A node's certificate is for both directions and its hosts, a client's for one; days fit."""
    authority = make_ca("a CA", now(), days=10)
    node = issue(authority, "n", ["a.example", "10.0.0.1", "[::1]"], now(), server=True)
    (facts,) = parse_certificates(node.cert, "n")
    assert facts.names == ("a.example", "10.0.0.1", "::1")
    assert facts.usages == ("server", "client")
    assert (facts.subject, facts.issuer, facts.is_ca) == ("CN=n", "CN=a CA", False)
    # No longer than who signed it.
    (signer,) = parse_certificates(authority.cert, "ca")
    assert signer.is_ca
    assert facts.not_after == signer.not_after
    client = issue(authority, "c", (), now(), server=False, days=3)
    (facts,) = parse_certificates(client.cert, "c")
    assert (facts.names, facts.usages) == ((), ("client",))


@pytest.mark.parametrize("host", ["", "a b", "a..b", "é.example", "*", "x" * 64, "a/b"])
def test_what_is_no_host_gets_no_certificate(host: str) -> None:
    """Nothing is made that nobody could dial."""
    with pytest.raises(InvalidArgumentError, match="expected the name or the address of a host"):
        issue(ca(), "n", [host], now(), server=True)


def test_files_without_certificates_are_named(tmp_path: Path) -> None:
    """Also where there is no file at all."""
    file = tmp_path / "x.pem"
    with pytest.raises(InvalidArgumentError, match=r"x\.pem: cannot be read"):
        read_certificates(str(file))
    file.write_text("nothing")
    with pytest.raises(InvalidArgumentError, match=r"x\.pem: holds no certificate"):
        read_certificates(str(file))
