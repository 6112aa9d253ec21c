"""Contexts of TLS from files: what is shown to the other side, and what is demanded of it.

Knows files in PEM form and OpenSSL's contexts; no configuration and no connection. Invariants:
TLS 1.2 is the oldest version; a fault names the file and what to do about it, and is an
InvalidArgumentError whose `field` is the part at fault: `ca`, `cert` or `key`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from typing import NamedTuple

from ssgovern.errors import InvalidArgumentError

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"


class Shown(NamedTuple):
    """The certificate, with what leads to its CA, and the key of this side: paths of files."""

    cert: str
    key: str


Marks = tuple[tuple[int, int, int] | None, ...]
"""What tells whether files were changed; None: not there."""


def marks_of(paths: Iterable[str]) -> Marks:
    """Return the marks of files as they are now."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)


def dialling_context(ca: str | None, shown: Shown | None) -> ssl.SSLContext:
    """Return what is demanded of who answers: a certificate of this CA (None: of the system's)
    for the name that was dialled. `shown` is this side's own."""
    if ca is not None:
        _check_pem("ca", ca, _CERTIFICATE)
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise _unreadable("ca", ca or "the system's CAs", error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if shown is not None:
        _show(context, shown)
    return context


def pinned_context(leaf: str, shown: Shown) -> ssl.SSLContext:
    """Return a context that accepts nobody but who has the key of one certificate, in PEM form.

    It needs no name and no CA: to have that key is to be who is meant.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=leaf)
    _show(context, shown)
    return context


def listening_context(
    shown: Shown, ca: str | None, demand: ssl.VerifyMode = ssl.CERT_NONE
) -> ssl.SSLContext:
    """Return what is shown to who dials, and what is demanded: a certificate of this CA, or none.

    `demand` of anything needs a `ca`.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # Tickets come unasked after the handshake. Who has said all and closes before it read them
    # resets the connection, and what it said is lost on its way.
    context.num_tickets = 0
    _show(context, shown)
    if demand is not ssl.CERT_NONE:
        assert ca is not None, "checked with the configuration"
        _check_pem("ca", ca, _CERTIFICATE)
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as error:
            raise _unreadable("ca", ca, error) from None
        context.verify_mode = demand
    return context


def _show(context: ssl.SSLContext, shown: Shown) -> None:
    _check_pem("cert", shown.cert, _CERTIFICATE)
    key = _check_pem("key", shown.key, _KEY)
    if b"ENCRYPTED" in key:
        raise InvalidArgumentError(
            f"{shown.key}: the key is encrypted, and nobody is there to type its password: write it"
            " without one (`openssl pkey -in KEY -out PLAIN`), readable by this user only",
            field="key",
        )
    try:
        # The password is never asked for; without a callback OpenSSL would, on the terminal.
        context.load_cert_chain(shown.cert, shown.key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidArgumentError(
                f"{shown.key}: this is not the key of the certificate in {shown.cert}: name the two"
                " that were made together",
                field="key",
            ) from None
        raise _unreadable("cert", f"{shown.cert}, {shown.key}", error) from None


def _check_pem(field: str, path: str, needed: bytes) -> bytes:
    """Return what a file holds. Raises InvalidArgumentError if it cannot be what is needed."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise InvalidArgumentError(
            f"{path}: cannot be read: {error.strerror or error}", field=field
        ) from None
    if needed not in text:
        what = "key" if needed == _KEY else "certificate"
        raise InvalidArgumentError(
            f"{path}: holds no {what} in PEM form (-----BEGIN …)", field=field
        )
    return text


def _unreadable(field: str, what: str, error: ssl.SSLError) -> InvalidArgumentError:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    return InvalidArgumentError(f"{what}: not understood: {reason}", field=field)
