"""TLS of a node: its certificate on all its ports, and what it demands of others.

Reads files and makes contexts of them; connections are the transport's. Files are looked at
every `TLS_LOOK_MS`: connections made after a change have what is new, those there were keep what
they have. Invariants: listeners and diallers always have contexts from one and the same reading;
files that cannot be used change nothing, but are told of; the node itself is recognised by its
key, whatever name it is dialled by.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ssgovern import limits
from ssgovern.errors import ConfigError, InvalidArgumentError
from ssgovern.node.certificates import Facts, read_certificates
from ssgovern.node.config import TlsConfig
from ssgovern.node.topology import is_any, is_loopback
from ssgovern.transport.tls import TlsListener, Trust
from ssgovern.transport.tls_context import (
    Marks,
    Shown,
    dialling_context,
    listening_context,
    marks_of,
    pinned_context,
)

log = logging.getLogger("ssgovern.tls")

_DEMANDS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Material:
    """All that one reading of the files gave."""

    listening: ssl.SSLContext
    dialling: ssl.SSLContext
    myself: ssl.SSLContext
    facts: Facts


def read_material(config: TlsConfig, wall_ms: int) -> Material:
    """Read the files and check that they can be used now.

    Raises InvalidArgumentError, whose `field` is the key of `[tls]` at fault.
    """
    shown = Shown(config.cert, config.key)
    ca = config.ca or None
    listening = listening_context(shown, ca, _DEMANDS[config.client_auth])
    facts = read_certificates(config.cert)[0]
    now = datetime.datetime.fromtimestamp(wall_ms / 1000.0, datetime.UTC)
    if facts.not_after <= now:
        raise InvalidArgumentError(
            f"{config.cert}: the certificate expired at {facts.not_after:%Y-%m-%d %H:%M} UTC:"
            " have a new one made and put it there",
            field="cert",
        )
    if facts.not_before > now:
        raise InvalidArgumentError(
            f"{config.cert}: the certificate is not valid before"
            f" {facts.not_before:%Y-%m-%d %H:%M} UTC: is this machine's clock right?",
            field="cert",
        )
    if facts.usages and "server" not in facts.usages:
        raise InvalidArgumentError(
            f"{config.cert}: the certificate may not be used by a server: have one made with the"
            " extended key usages serverAuth and clientAuth",
            field="cert",
        )
    if config.client_auth != "none" and facts.usages and "client" not in facts.usages:
        raise InvalidArgumentError(
            f"{config.cert}: the certificate may not be used by a client, and a node is one of"
            " others and of itself, which ask for one (tls.client_auth): have one made with the"
            " extended key usages serverAuth and clientAuth",
            field="cert",
        )
    return Material(listening, dialling_context(ca, shown), pinned_context(facts.pem, shown), facts)


class NodeTls:
    """The TLS of one node: a dialler, and owner of the listener of all ports."""

    def __init__(self, config: TlsConfig, wall_ms: Callable[[], int]) -> None:
        """Read the files. Raises ConfigError."""
        self._config = config
        self._wall_ms = wall_ms
        self._paths = [path for path in (config.cert, config.key, config.ca) if path]
        self._marks: Marks = marks_of(self._paths)
        self._seen = self._marks
        try:
            self.material = read_material(config, wall_ms())
        except InvalidArgumentError as error:
            raise ConfigError(f"tls.{error.fields.get('field', 'cert')}: {error.message}") from None
        self.listener = TlsListener(
            lambda: self.material.listening,
            # Where clients may show one, nodes must.
            peers_show_certificates=config.client_auth != "none",
        )
        self.reloads = 0
        self.reloads_failed = 0
        self._here: tuple[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._warned_ms = 0

    def __repr__(self) -> str:
        return f"<NodeTls {self._config.cert} until {self.material.facts.not_after:%Y-%m-%d}>"

    def set_here(self, host: str, port: int) -> None:
        """Take where this node itself listens."""
        self._here = host, port

    def trust(self, host: str, port: int) -> Trust:
        """Return what is demanded of who listens there (`transport.tls.TlsDialler`)."""
        if self._here is not None and port == self._here[1]:
            here = self._here[0]
            if host == here or (is_loopback(host) and (is_any(here) or is_loopback(here))):
                return Trust(self.material.myself, host)
        return Trust(self.material.dialling, host)

    # --- looking after the files -----------------------------------------------------------

    def start(self) -> None:
        """Look at the files from now on, until `stop`."""
        self.look()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(limits.TLS_LOOK_MS / 1000.0, self.start)

    def stop(self) -> None:
        """Leave the files alone, and drop who has not got through the handshake."""
        if self._timer is not None:
            self._timer.cancel()
        self.listener.stop()

    def look(self) -> None:
        """Look once. Files that changed are read when a second look finds them the same:
        certificate and key are never replaced in one moment."""
        marks = marks_of(self._paths)
        if marks != self._seen:
            self._seen = marks
        elif marks != self._marks:
            self._marks = marks
            self._reload()
        self._tell_of_expiry()

    def _reload(self) -> None:
        try:
            self.material = read_material(self._config, self._wall_ms())
        except InvalidArgumentError as error:
            self.reloads_failed += 1
            log.error("the changed TLS files are not used: %s", error.message)
            return
        self.reloads += 1
        self._warned_ms = 0
        facts = self.material.facts
        log.info("new certificate: %s, until %s", facts.subject, facts.not_after)

    def _tell_of_expiry(self) -> None:
        now_ms = self._wall_ms()
        facts = self.material.facts
        left_ms = facts.not_after.timestamp() * 1000.0 - now_ms
        # Those that live for hours only are renewed when a third of that is left, or a half.
        life = facts.not_after - facts.not_before
        told_ms = min(limits.TLS_EXPIRY_TOLD_DAYS * 86_400.0, life.total_seconds() / 4) * 1000.0
        if left_ms > told_ms:
            return
        if self._warned_ms and now_ms - self._warned_ms < limits.TLS_EXPIRY_TOLD_MS:
            return
        self._warned_ms = now_ms
        verb = "ends" if left_ms > 0 else "ended"
        log.warning(
            "the certificate in %s %s at %s: put a new one there, no restart is needed",
            self._config.cert,
            verb,
            facts.not_after,
        )
