"""Addresses of nodes, as callers write them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ssgovern.errors import InvalidArgumentError

DEFAULT_PORT = 7420


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_addresses(addresses: str | Sequence[str]) -> list[Address]:
    """Parse `host`, `host:port`, `[::1]:port`; several in a list or separated by commas."""
    texts = addresses.split(",") if isinstance(addresses, str) else list(addresses)
    parsed = [_parse(text.strip()) for text in texts if text.strip()]
    if not parsed:
        raise InvalidArgumentError(f"no address in {addresses!r}", field="addresses")
    return list(dict.fromkeys(parsed))


def _parse(text: str) -> Address:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        well_formed = bool(bracket) and colon in ("", ":")
    elif text.count(":") > 1:
        # A bare IPv6 address, without a port.
        host, colon, port, well_formed = text, "", "", True
    else:
        host, colon, port = text.partition(":")
        well_formed = True
    if colon:
        well_formed = well_formed and len(port) <= 5 and port.isascii() and port.isdigit()
    number = int(port) if colon and well_formed else DEFAULT_PORT
    if not (well_formed and host and not any(map(str.isspace, host)) and 1 <= number <= 65535):
        raise InvalidArgumentError(
            f"address {text!r}: expected host, host:port or [IPv6]:port", field="addresses"
        )
    return Address(host, number)
