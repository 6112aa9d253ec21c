"""How commands reach a server, and what they say when it goes away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ssgovern.cli.options import Target
from ssgovern.cli.output import visible
from ssgovern.client.registry import OnConnection, Registry, connect
from ssgovern.client.values import ConnectionState
from ssgovern.version import __version__


def connected(target: Target, on_connection: OnConnection | None = None) -> Registry:
    """Return a client for the target: one that keeps nothing on disk."""
    log_for(debug=target.debug)
    return connect(
        target.server,
        namespace=target.namespace,
        client_name=f"ss-govern/{__version__}",
        timeout=target.timeout_s,
        on_connection=on_connection,
        tls=target.tls,
        token=target.token,
    )


def log_for(*, debug: bool) -> None:
    """Show the SDK's log with --debug only: what matters is said in the command's own words."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s: %(message)s")
    else:
        logging.getLogger("ssgovern").addHandler(logging.NullHandler())


class ConnectionReport:
    """Says on standard error when the server goes away and comes back."""

    def __init__(self, meanwhile: str) -> None:
        self._meanwhile = meanwhile
        self._was_connected = False
        self._is_lost = False
        self._is_over = False

    @contextmanager
    def while_needed(self) -> Iterator[None]:
        """Report in this block only: after it the command ends the connection itself."""
        try:
            yield
        finally:
            self._is_over = True

    def tell(self, state: ConnectionState) -> None:
        """Take a new state of the connection."""
        if self._is_over:
            return
        if state.connected:
            if self._is_lost:
                click.echo(f"connected again, to {state.address}", err=True)
            self._was_connected, self._is_lost = True, False
        elif self._was_connected and not self._is_lost:
            self._is_lost = True
            reason = f" ({visible(state.reason)})" if state.reason else ""
            click.echo(f"connection lost{reason}; {self._meanwhile}", err=True)
