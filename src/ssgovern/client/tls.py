"""How a client is to use TLS, as callers say it.

Knows what callers may write and the files they name; dialling is the transport's. Invariant:
files are read when the client is made, so that what is wrong with them is told at once, and
again when they were changed: what is changed for the worse is logged, and the old kept.
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from typing import TypeAlias

from ssgovern.errors import InvalidArgumentError
from ssgovern.transport.tls import TlsDialler, Trust
from ssgovern.transport.tls_context import Marks, Shown, dialling_context, marks_of

_logger = logging.getLogger("ssgovern.client")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with files in PEM form. Nodes must show a certificate for the name that is dialled."""

    ca: str | os.PathLike[str] | None = None
    """Who has to have signed it; None: a CA that the system trusts."""
    cert: str | os.PathLike[str] | None = None
    """What nodes are shown that ask for a certificate (tls.client_auth), with its chain."""
    key: str | os.PathLike[str] | None = None
    """The key of `cert`; None: it is in the same file."""
    server_name: str | None = None
    """The name nodes' certificates are for, where they are dialled by another one."""


TlsOption: TypeAlias = bool | str | os.PathLike[str] | Tls | ssl.SSLContext | TlsDialler
"""False: none. True: CAs of the system. A path: the CA's file. `Tls`: all there is to say."""


def dialler_of(option: TlsOption) -> TlsDialler | None:
    """Return how to dial; None: without TLS. Raises InvalidArgumentError."""
    if isinstance(option, bool):
        return FileDialler(Tls()) if option else None
    if isinstance(option, (str, os.PathLike)):
        if not os.fspath(option):
            raise InvalidArgumentError("tls: expected the path of a CA's file", field="tls")
        return FileDialler(Tls(ca=option))
    if isinstance(option, Tls):
        return FileDialler(option)
    if isinstance(option, ssl.SSLContext):
        return _ContextDialler(option)
    return option


class FileDialler:
    """Dials with what the files of a `Tls` say at the time."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._ca = None if tls.ca is None else os.fspath(tls.ca)
        self._shown = _shown(tls)
        self._paths = [path for path in (self._ca, *(self._shown or ())) if path is not None]
        self._marks: Marks = marks_of(self._paths)
        self._context = dialling_context(self._ca, self._shown)

    def __repr__(self) -> str:
        return f"<FileDialler {self._tls}>"

    def trust(self, host: str, port: int) -> Trust:
        """Return what is demanded of who listens there."""
        marks = marks_of(self._paths)
        if marks != self._marks:
            self._marks = marks
            try:
                self._context = dialling_context(self._ca, self._shown)
            except InvalidArgumentError as error:
                _logger.warning("TLS goes on with what was there before: %s", error)
        return Trust(self._context, self._tls.server_name or host)


class _ContextDialler:
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def trust(self, host: str, port: int) -> Trust:
        return Trust(self._context, host)


def _shown(tls: Tls) -> Shown | None:
    if tls.cert is None:
        if tls.key is not None:
            raise InvalidArgumentError("tls: a key without its certificate", field="cert")
        return None
    return Shown(os.fspath(tls.cert), os.fspath(tls.cert if tls.key is None else tls.key))
