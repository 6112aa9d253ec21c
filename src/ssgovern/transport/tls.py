"""TLS on a connection, between the socket's transport and the protocol above it.

Knows records, handshakes and what went wrong with them; no message, no file and no policy: what
is demanded of the other side is in the contexts it is given. asyncio's own layer is not used,
because it hides how much waits to be sent, which our limits rest on, and because a listener is
to change its certificate, and to tell who came without TLS, what is wrong. Invariants: the
protocol above sees a connection only after the handshake, and sees of it what it would see
without TLS; what is read is handed on in the same turn, so nothing is kept here; a handshake ends
within `TLS_HANDSHAKE_MS`, and at most `TLS_HANDSHAKES_MAX` are under way on one listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple, Protocol, TypeVar, cast

from ssgovern import limits

log = logging.getLogger("ssgovern.tls")

_RECORD_BYTES = 16384
_ALERT, _HANDSHAKE = 0x15, 0x16
"""The first byte of a record (RFC 8446, 5.1)."""

P = TypeVar("P", bound=asyncio.Protocol)


class TlsError(ConnectionError):
    """The handshake failed, or what came later was no TLS. Its text is for people."""


class Trust(NamedTuple):
    """What a dialler demands of who answers."""

    context: ssl.SSLContext
    name: str
    """What the certificate has to be for, if the context checks that."""


class TlsDialler(Protocol):
    """Knows what to demand of each address. Asked for each connection anew."""

    def trust(self, host: str, port: int) -> Trust:
        """Return what is demanded of who listens there."""


class _Stage(Enum):
    SHAKING = auto()
    OPEN = auto()
    CLOSING = auto()
    """This side closed it."""
    FAILED = auto()


class TlsStream(asyncio.Transport, asyncio.Protocol):
    """One connection: protocol of the socket, and transport of the protocol above."""

    __slots__ = (
        "_above",
        "_cause",
        "_handshake_ms",
        "_incoming",
        "_is_dialler",
        "_is_held",
        "_loop",
        "_make",
        "_name",
        "_on_end",
        "_outgoing",
        "_plain_answer",
        "_raw",
        "_ssl",
        "_stage",
        "_timer",
        "_was_seen",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        on_end: Callable[[TlsStream, TlsError | None], None],
        *,
        name: str | None = None,
        plain_answer: bytes = b"",
        handshake_ms: int = limits.TLS_HANDSHAKE_MS,
    ) -> None:
        """`name` makes it the dialling side. `on_end` is told, once, how the handshake ended.

        Raises ValueError if `name` cannot be one.
        """
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._is_dialler = name is not None
        self._ssl = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=not self._is_dialler,
            server_hostname=name or None,
        )
        self._loop = asyncio.get_running_loop()
        self._name = name or ""
        self._make = make
        self._on_end = on_end
        self._plain_answer = plain_answer
        self._handshake_ms = handshake_ms
        self._stage = _Stage.SHAKING
        self._above: asyncio.Protocol | None = None
        self._raw: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cause: TlsError | None = None
        self._was_seen = False
        self._is_held = False
        """The protocol above wants nothing to be read."""

    def __repr__(self) -> str:
        return f"<TlsStream {self.peer} {self._stage.name.lower()}>"

    @property
    def peer(self) -> str:
        """The other end's address without its port."""
        peer = None if self._raw is None else self._raw.get_extra_info("peername")
        return str(peer[0]) if peer else "?"

    # --- the socket's protocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio.Transport, hence the cast.
        self._raw = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(self._handshake_ms / 1000.0, self._on_too_slow)
        if self._is_dialler:
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self._stage is _Stage.OPEN:
            self._incoming.write(data)
            self._hand_on()
        elif self._stage is _Stage.SHAKING:
            if not self._was_seen and data[0] not in (_HANDSHAKE, _ALERT):
                self._on_plain()
                return
            self._was_seen = True
            self._incoming.write(data)
            self._shake()

    def eof_received(self) -> bool | None:
        if self._stage is _Stage.SHAKING:
            self._end(TlsError(_closed_early(dialler=self._is_dialler)))
        elif self._stage is _Stage.OPEN:
            self._on_eof()
        return False

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stage is _Stage.SHAKING:
            reason = str(exc) if exc else _closed_early(dialler=self._is_dialler)
            self._end(TlsError(reason))
        self._stop_timer()
        above, self._above = self._above, None
        if above is not None:
            above.connection_lost(self._cause or exc)

    # --- handshake -------------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            # What was written is the alert, which tells the other side why.
            self._flush()
            self._end(TlsError(self._explain(error)))
            return
        self._flush()
        self._stop_timer()
        self._stage = _Stage.OPEN
        self._on_end(self, None)
        self._above = self._make()
        self._above.connection_made(self)
        # What came in the same segment as the end of the handshake.
        self._hand_on()

    def _on_plain(self) -> None:
        if self._is_dialler:
            self._end(TlsError("it does not speak TLS"))
            return
        assert self._raw is not None, "it was read from"
        self._raw.write(self._plain_answer)
        self._end(TlsError("it does not speak TLS, and this port does"))

    def _on_too_slow(self) -> None:
        self._end(TlsError("the TLS handshake took too long"))
        self.abort()

    def _end(self, error: TlsError) -> None:
        """Give up before there was a connection.

        Closing at once would make the system drop what tells the other side why, together with
        what of theirs was not read; so it is thrown away for a moment.
        """
        self._stage = _Stage.FAILED
        self._stop_timer()
        raw = self._raw
        if raw is not None and not raw.is_closing():
            if self._is_dialler:
                raw.close()
            else:
                if raw.can_write_eof():
                    raw.write_eof()
                self._timer = self._loop.call_later(limits.TLS_LINGER_MS / 1000.0, raw.abort)
        self._on_end(self, error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- records ---------------------------------------------------------------------------

    def _hand_on(self) -> None:
        """Hand on all that can be read, in one piece: then nothing is left when reading pauses."""
        if self._is_held or self._stage is not _Stage.OPEN:
            return
        pieces: list[bytes] = []
        read = self._ssl.read
        is_over = False
        try:
            while piece := read(_RECORD_BYTES):
                pieces.append(piece)
            is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._cause = TlsError(self._explain(error))
        if self._outgoing.pending:
            # An answer to what was no data, as a change of keys.
            self._flush()
        above = self._above
        if pieces and above is not None:
            above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._cause is not None:
            self.abort()
        elif is_over and self._stage is _Stage.OPEN:
            self._on_eof()

    def _on_eof(self) -> None:
        if self._above is not None:
            self._above.eof_received()
        # There is no half of a TLS connection here, whatever the protocol above would like.
        self.close()

    def _encrypt(self, data: bytes) -> None:
        size = len(data)
        write = self._ssl.write
        try:
            if size <= _RECORD_BYTES:
                write(data)
                return
            view = memoryview(data)
            done = 0
            while done < size:
                done += write(view[done : done + _RECORD_BYTES])
        except ssl.SSLError as error:
            self._cause = TlsError(self._explain(error))
            self.abort()

    def _flush(self) -> None:
        assert self._raw is not None, "nothing is encrypted before there is a socket"
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    # --- the transport of the protocol above -----------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._stage is _Stage.OPEN and data:
            self._encrypt(data if type(data) is bytes else bytes(data))
            self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        # Together: each piece by itself would be a record by itself.
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        raw = self._raw
        if raw is None or self._stage not in (_Stage.OPEN, _Stage.SHAKING):
            return
        was_open = self._stage is _Stage.OPEN
        self._stage = _Stage.CLOSING
        self._stop_timer()
        if was_open:
            # It raises that it would wait for the other side's word, which nobody needs.
            with contextlib.suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._flush()
        raw.close()

    def abort(self) -> None:
        if self._stage is _Stage.OPEN:
            self._stage = _Stage.CLOSING
        if self._raw is not None:
            self._raw.abort()

    def is_closing(self) -> bool:
        raw = self._raw
        return self._stage is not _Stage.OPEN or raw is None or raw.is_closing()

    def is_reading(self) -> bool:
        return not self._is_held and not self.is_closing()

    def pause_reading(self) -> None:
        self._is_held = True
        if self._raw is not None:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_held:
            return
        self._is_held = False
        if self._raw is not None:
            self._raw.resume_reading()
            # Only from before the first pause, which the protocol above may ask for at once.
            self._loop.call_soon(self._hand_on)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._above is not None, "nobody asks who is not above it"
        return self._above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = cast("asyncio.Protocol", protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (0, 0) if self._raw is None else self._raw.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait, as they go over the wire."""
        return 0 if self._raw is None else self._raw.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: object = None) -> object:
        if name == "sslcontext":
            return self._ssl.context
        if name == "ssl_object":
            return self._ssl
        if name == "peercert":
            return self._ssl.getpeercert()
        return default if self._raw is None else self._raw.get_extra_info(name, default)

    # --- wording ---------------------------------------------------------------------------

    def _explain(self, error: ssl.SSLError) -> str:
        """Return what went wrong, for people, with what may be done about it."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return _about_certificate(error, self._name)
        reason = error.reason or ""
        for part, words in _REASONS.items():
            if part in reason:
                return words
        return f"TLS failed: {reason.lower().replace('_', ' ') or error}"


_HOST_MISMATCH, _IP_MISMATCH = 62, 64
_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_ISSUERS = (2, 18, 19, 20, 21)
"""Of OpenSSL's verification errors (X509_V_ERR_…)."""


def _about_certificate(error: ssl.SSLCertVerificationError, name: str) -> str:
    code = error.verify_code
    if code in (_HOST_MISMATCH, _IP_MISMATCH):
        return (
            f"its certificate is not for {name}: dial it by a name the certificate has, or have"
            " one made for this name"
        )
    if code == _EXPIRED:
        return "its certificate has expired: it needs a new one"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet: is a clock wrong?"
    if code in _UNKNOWN_ISSUERS:
        return (
            "its certificate is not signed by a CA that is trusted here"
            f" ({error.verify_message}): name the CA's file"
        )
    return f"its certificate was refused: {error.verify_message}"


_REASONS = {
    "ALERT_CERTIFICATE_REQUIRED": "it wants a certificate from this side: name one, and its key",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, and needs one here",
    "ALERT_UNKNOWN_CA": "it does not trust the CA that signed this side's certificate",
    "ALERT_CERTIFICATE_EXPIRED": "it says that this side's certificate has expired",
    "ALERT_CERTIFICATE_UNKNOWN": "it does not accept this side's certificate",
    "ALERT_BAD_CERTIFICATE": "it does not accept this side's certificate (is it for this name?)",
    "ALERT_UNSUPPORTED_CERTIFICATE": "it does not accept this kind of certificate from this side",
    "ALERT_PROTOCOL_VERSION": "both sides share no version of TLS: 1.2 is the oldest",
    "UNSUPPORTED_PROTOCOL": "both sides share no version of TLS: 1.2 is the oldest",
    "NO_SHARED_CIPHER": "both sides share no cipher",
    "ALERT_HANDSHAKE_FAILURE": "both sides share no cipher, or it wants a certificate",
    "UNEXPECTED_EOF": "closed by the other side",
}
"""By what is part of OpenSSL's reason."""


def _closed_early(*, dialler: bool) -> str:
    if dialler:
        return "it closed the connection in the TLS handshake: does it speak TLS?"
    return "it closed the connection in the TLS handshake"


# --- dialling and listening ----------------------------------------------------------------


async def dial_tls(make: Callable[[], P], host: str, port: int, dialler: TlsDialler) -> P:
    """Connect, and return the protocol above once the handshake is through.

    Raises TlsError, other OSErrors, and UnicodeError as the loop does.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()
    made: list[P] = []

    def make_one() -> P:
        made.append(make())
        return made[0]

    def on_end(_: TlsStream, error: TlsError | None) -> None:
        if opened.done():
            return
        if error is None:
            opened.set_result(None)
        else:
            opened.set_exception(error)

    trust = dialler.trust(host, port)
    try:
        stream = TlsStream(trust.context, make_one, on_end, name=trust.name)
    except UnicodeError:
        raise
    except ValueError:
        raise TlsError(f"{trust.name!r} cannot be the name of a certificate") from None
    await loop.create_connection(lambda: stream, host, port)
    try:
        await opened
    except BaseException:
        stream.abort()
        raise
    return made[0]


class TlsListener:
    """Takes connections with TLS, for any number of ports of one process."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        *,
        handshakes_max: int = limits.TLS_HANDSHAKES_MAX,
        handshake_ms: int = limits.TLS_HANDSHAKE_MS,
        peers_show_certificates: bool = False,
    ) -> None:
        """`context` is asked for each connection anew: what it returns may change."""
        self._context = context
        self.peers_show_certificates = peers_show_certificates
        """Other nodes must show a certificate, whether or not clients have to."""
        self._handshakes_max = handshakes_max
        self._handshake_ms = handshake_ms
        self._shaking: dict[TlsStream, None] = {}
        self._told: dict[tuple[str, str], None] = {}
        self.handshakes = 0
        self.handshakes_failed = 0

    def __repr__(self) -> str:
        return f"<TlsListener shaking={len(self._shaking)} failed={self.handshakes_failed}>"

    def accepting(
        self, make: Callable[[], asyncio.Protocol], plain_answer: bytes
    ) -> Callable[[], asyncio.Protocol]:
        """Return what makes protocols for a server: a handshake first, then what `make` makes.

        `plain_answer` is what who comes without TLS is told, in its own protocol.
        """

        def accept() -> asyncio.Protocol:
            if len(self._shaking) >= self._handshakes_max:
                self.handshakes_failed += 1
                return _Refusing()
            stream = TlsStream(
                self._context(),
                make,
                self._on_end,
                plain_answer=plain_answer,
                handshake_ms=self._handshake_ms,
            )
            self._shaking[stream] = None
            return stream

        return accept

    def stop(self) -> None:
        """Drop those that have not got through."""
        for stream in list(self._shaking):
            stream.abort()

    def _on_end(self, stream: TlsStream, error: TlsError | None) -> None:
        self._shaking.pop(stream, None)
        if error is None:
            self.handshakes += 1
            return
        self.handshakes_failed += 1
        # Once for each fault of each address: who dials again and again would fill the log.
        key = (stream.peer, str(error))
        if key not in self._told:
            if len(self._told) >= limits.TLS_FAULTS_TOLD_MAX:
                self._told.clear()
            self._told[key] = None
            log.warning("no TLS connection with %s: %s", *key)


class _Refusing(asyncio.Protocol):
    """Ends a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()
