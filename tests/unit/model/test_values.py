"""Keys, slots, sessions and instances."""

from __future__ import annotations

import math
from binascii import crc_hqx

import pytest

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, LimitExceededError, SsGovernError
from ssgovern.model import (
    SHARDS,
    SLOTS,
    Instance,
    LogPosition,
    Pattern,
    ServiceKey,
    Status,
    check_instance,
    check_metadata,
    check_name,
    check_weight,
    instance_id,
    session_id_of,
    session_secret_matches,
    shard_of,
    shard_of_slot,
    slot_of,
)


def test_slots_are_those_of_redis_cluster() -> None:
    """The CRC is CRC16-XMODEM, whose check value for 123456789 is 0x31C3."""
    assert crc_hqx(b"123456789", 0) == 0x31C3
    assert slot_of("prod", "default", "orders") == crc_hqx(b"prod@@default@@orders", 0) % 16384


def test_slots_and_shards_never_move() -> None:
    """Where a service lives is written into every data directory: these numbers are for ever."""
    assert (SLOTS, SHARDS) == (16384, 256)
    assert slot_of("prod", "default", "orders") == 9235
    assert slot_of("prod", "default", "订单") == 13771
    assert shard_of("prod", "default", "orders") == 144


def test_shards_are_equal_runs_of_slots() -> None:
    """Each shard has 64 slots in a row, and both ways to a shard agree."""
    shards = [shard_of_slot(slot) for slot in range(SLOTS)]  # type: ignore[arg-type]
    assert shards == sorted(shards)
    assert all(shards.count(shard) == 64 for shard in (0, 1, 255))
    for n in range(200):
        key = ("prod", "g", f"s{n}")
        assert shard_of(*key) == shard_of_slot(slot_of(*key))


@pytest.mark.parametrize(
    "name", ["a", "com.acme.OrderService:1.0", "订单", "a@b", "a/b", "x" * 256]
)
def test_names_that_are_allowed(name: str) -> None:
    """Names of every ecosystem fit."""
    check_name("service", name)


@pytest.mark.parametrize("name", ["", "a b", "a*", "?", "a@@b", "a\n", "a\u00a0b", "a\u200bb"])
def test_names_that_are_not(name: str) -> None:
    """What would not print, or means something in a pattern or a key, is refused."""
    with pytest.raises(InvalidArgumentError) as error:
        check_name("service", name)
    assert error.value.fields["field"] == "service"


@pytest.mark.parametrize("name", ["x" * 257, "订" * 86])
def test_names_that_are_too_long(name: str) -> None:
    """The limit is in bytes, and is named."""
    with pytest.raises(LimitExceededError) as error:
        check_name("service", name)
    assert error.value.fields["limit"] == str(limits.NAME_BYTES_MAX)


@pytest.mark.parametrize(
    "weight", [-1e-9, limits.WEIGHT_MAX * 1.001, math.nan, math.inf, -math.inf]
)
def test_weights_that_are_not(weight: float) -> None:
    """A weight is finite, not negative and bounded."""
    with pytest.raises(InvalidArgumentError):
        check_weight(weight)


@pytest.mark.parametrize("weight", [0.0, 0.5, limits.WEIGHT_MAX])
def test_weights_that_are_allowed(weight: float) -> None:
    """Both ends are included."""
    check_weight(weight)


def slowly(*fields: object) -> type[SsGovernError] | None:
    """Check the fields where the quick look at all of them at once cannot apply."""
    try:
        check_instance(*fields)  # type: ignore[arg-type]
    except SsGovernError as error:
        return type(error)
    return None


@pytest.mark.parametrize("bad", [" ", "*", "?", "@@", "\n", "\x7f", "\u00a0"])
@pytest.mark.parametrize("field", [0, 1, 4, 5])
def test_quick_and_thorough_checks_agree(bad: str, field: int) -> None:
    """A short instance is checked by another path than a long one, with the same outcome."""
    fields: list[object] = ["id", "host", 80, 1.0, "zone", "version"]
    fields[field] = f"a{bad}b"
    short = slowly(*fields)
    for other in (4, 5):
        if other != field:
            fields[other] = "x" * 120
    assert slowly(*fields) == short


def test_quick_and_thorough_checks_of_metadata_agree() -> None:
    """The same for metadata, with its size known or not."""
    for metadata in (
        {"a": "b"},
        {"": "b"},
        {"a\n": "b"},
        {"k" * 129: "v"},
        {"k": "v" * 4097},
        {f"k{n}": "v" for n in range(65)},
        {"订": "单"},
        {"k": "\n\0 anything"},
    ):
        outcomes = []
        size = sum(len(k.encode()) + len(v.encode()) + 6 for k, v in metadata.items())
        for size_bytes in (None, size):
            try:
                check_metadata(metadata, size_bytes)
                outcomes.append(None)
            except SsGovernError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1], metadata


def test_ids_from_addresses() -> None:
    """An IPv6 address gets its brackets."""
    assert instance_id("10.0.0.1", 80) == "10.0.0.1:80"
    assert instance_id("::1", 80) == "[::1]:80"


@pytest.mark.parametrize(
    ("fields", "available"),
    [
        ({}, True),
        ({"status": Status.STARTING}, False),
        ({"healthy": False}, False),
        ({"enabled": False}, False),
        ({"weight": 0.0}, False),
    ],
)
def test_availability(fields: dict[str, object], available: bool) -> None:
    """Status, health, admin state and weight each can take an instance out of traffic."""
    assert Instance("a", "h", 1, **fields).available is available  # type: ignore[arg-type]


def test_a_session_is_who_has_its_secret() -> None:
    """Only the secret an id was made of matches it."""
    secret = b"s" * 16
    session_id = session_id_of(secret)
    assert len(session_id) == 16
    assert session_secret_matches(session_id, secret)
    assert not session_secret_matches(session_id, b"t" * 16)
    assert not session_secret_matches(session_id[:15], secret)


def test_patterns() -> None:
    """A pattern covers names that begin with its prefix, in its own namespace and group."""
    pattern = Pattern("n", "g", "ord")
    assert pattern.matches(ServiceKey("n", "g", "orders"))
    assert not pattern.matches(ServiceKey("n", "g", "or"))
    assert not pattern.matches(ServiceKey("m", "g", "orders"))
    assert not pattern.matches(ServiceKey("n", "h", "orders"))


def test_positions_order_by_epoch_first() -> None:
    """A later epoch is later, whatever its revision."""
    assert LogPosition(2, 1) > LogPosition(1, 99)
    assert repr(LogPosition(5, 18)) == "5/18"
