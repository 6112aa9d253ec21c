"""Addresses of nodes, as callers write them."""

from __future__ import annotations

import pytest

from ssgovern.client.addresses import Address, parse_addresses
from ssgovern.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", [Address("localhost", 7420)]),
        ("a:1, b:2,a:1", [Address("a", 1), Address("b", 2)]),
        ("[::1]:99", [Address("::1", 99)]),
        ("[::1]", [Address("::1", 7420)]),
        ("fe80::1", [Address("fe80::1", 7420)]),
        (["x:5"], [Address("x", 5)]),
    ],
)
def test_addresses_are_read(text: str | list[str], expected: list[Address]) -> None:
    """Ports may be left out, IPv6 takes brackets, several are separated by commas."""
    assert parse_addresses(text) == expected


@pytest.mark.parametrize(
    "text", ["", ",", "a:", "a:0", "a:65536", "a:x", ":5", "[::1", "[::1]5", []]
)
def test_wrong_addresses_are_refused(text: str | list[str]) -> None:
    """What is no address raises an error that shows it."""
    with pytest.raises(InvalidArgumentError):
        parse_addresses(text)
