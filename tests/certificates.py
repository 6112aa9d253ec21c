"""A CA and certificates for tests, made once for all of them."""

from __future__ import annotations

import datetime
import functools
import ssl
from collections.abc import Sequence
from pathlib import Path

from ssgovern.node.certificates import Made, issue, make_ca, write_made
from ssgovern.transport.tls import Trust
from ssgovern.transport.tls_context import Shown, dialling_context, listening_context

HERE = ("localhost", "127.0.0.1", "::1")
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


_CAS: dict[str, Made] = {}


def ca(name: str = "test CA") -> Made:
    if name not in _CAS:
        _CAS[name] = make_ca(name, now())
    return _CAS[name]


@functools.cache
def node_certificate(
    authority: str = "test CA", hosts: Sequence[str] = HERE, *, expired: bool = False
) -> Made:
    when = LONG_AGO if expired else now()
    return issue(ca(authority), "node", hosts, when, server=True, days=1)


@functools.cache
def client_certificate(authority: str = "test CA") -> Made:
    return issue(ca(authority), "client", (), now(), server=False, days=1)


class Papers:
    """Files of a CA, a node and a client in one directory."""

    def __init__(self, directory: Path, authority: str = "test CA") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(ca(authority).cert)
        self.cert, self.key = self._write("node", node_certificate(authority))
        self.client_cert, self.client_key = self._write("client", client_certificate(authority))

    def _write(self, name: str, made: Made) -> tuple[Path, Path]:
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        write_made(made, cert, key)
        return cert, key

    def replace(self, made: Made) -> None:
        """Let the node have another certificate."""
        self.key.write_bytes(made.key)
        self.cert.write_bytes(made.cert)

    @property
    def node(self) -> Shown:
        return Shown(str(self.cert), str(self.key))

    @property
    def client(self) -> Shown:
        return Shown(str(self.client_cert), str(self.client_key))

    def listening(self, demand: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
        return listening_context(self.node, str(self.ca), demand)

    def dialler(self, *, shown: bool = False) -> Dialler:
        return Dialler(dialling_context(str(self.ca), self.client if shown else None))

    def arguments(self, client_auth: str = "none") -> tuple[str, ...]:
        """What a node is started with."""
        return (
            *("--tls-cert", str(self.cert), "--tls-key", str(self.key)),
            *("--tls-ca", str(self.ca), "--tls-client-auth", client_auth),
        )


class Dialler:
    """Demands what a context does, of the name that is dialled."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def trust(self, host: str, port: int) -> Trust:
        return Trust(self.context, host)
