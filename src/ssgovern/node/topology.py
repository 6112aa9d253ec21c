"""Addresses of a cluster as its configuration names them. Pure; faults are ValueError.

Refuses to know who listens there: names are not looked up, nothing is dialled.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from ssgovern import limits
from ssgovern.model import NodeId

DEFAULT_PORT = 7420
CANDIDATE_COUNTS = (1, 3, 5)
"""An even number of votes survives no more than one vote less, and stops sooner."""


class Address(NamedTuple):
    """Where a node can be dialled."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class CandidateAddress(NamedTuple):
    """A node that votes, as the configuration names it."""

    node_id: NodeId
    address: Address


def parse_address(text: str) -> Address:
    """Parse `host`, `host:port` or `[IPv6]:port`."""
    text = text.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        well_formed = bool(closed) and colon in ("", ":") and ":" in host
    else:
        host, colon, port = text.partition(":")
        well_formed = ":" not in port
    if colon:
        well_formed = well_formed and len(port) <= 5 and port.isascii() and port.isdigit()
    number = int(port) if colon and well_formed else DEFAULT_PORT
    plain = host.isascii() and host.isprintable() and not any(c in " /@,[]" for c in host)
    if not (well_formed and host and plain and 1 <= number <= 65535):
        raise ValueError(text)
    if len(host) > limits.HOST_BYTES_MAX:
        raise ValueError(text)
    return Address(host, number)


def parse_seeds(text: str) -> tuple[Address, ...]:
    """Parse addresses separated by commas, each once; empty: none."""
    parts = [part for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(parse_address(part) for part in parts))


def parse_candidates(text: str) -> tuple[CandidateAddress, ...]:
    """Parse `1@host:port,2@host:port`, sorted by id; empty: none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(sorted(_candidate(part) for part in parts))


def _candidate(text: str) -> CandidateAddress:
    number, at, address = text.partition("@")
    if not (at and number.isascii() and number.isdigit() and len(number) <= 10):
        raise ValueError(text)
    if not 1 <= int(number) <= 2**31 - 1:
        raise ValueError(text)
    return CandidateAddress(NodeId(int(number)), parse_address(address))


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_any(host: str) -> bool:
    """Tell whether it means all addresses of a machine, which nobody can dial."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
