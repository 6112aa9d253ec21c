"""Between the model's values and messages, and errors across the wire."""

from __future__ import annotations

import pytest

from ssgovern.errors import (
    CorruptionError,
    ErrorCode,
    InvalidArgumentError,
    Retry,
    SsGovernError,
    error_from_wire,
)
from ssgovern.model import Instance, Pattern, ServiceKey, Status
from ssgovern.wire import codec
from ssgovern.wire.pb import model_pb2, native_pb2

FULL = Instance(
    "a",
    "::1",
    80,
    weight=0.5,
    status=Status.STOPPING,
    healthy=False,
    enabled=False,
    ephemeral=False,
    zone="z",
    version="v",
    metadata={"a": "1", "b": "2"},
    revision=3,
    registered_at_ms=4,
)


@pytest.mark.parametrize("instance", [FULL, Instance("a", "h", 1)])
def test_instances_come_back_as_they_went(instance: Instance) -> None:
    """Every field of an instance survives the wire."""
    assert codec.instance_from_wire(codec.instance_to_wire(instance)) == instance


def test_keys_and_patterns_come_back_as_they_went() -> None:
    """All three parts survive the wire."""
    key, pattern = ServiceKey("n", "g", "s"), Pattern("n", "g", "p")
    assert codec.key_from_wire(codec.key_to_wire(key)) == key
    assert codec.pattern_from_wire(codec.pattern_to_wire(pattern)) == pattern


@pytest.mark.parametrize("status", [4, 99, -1])
def test_a_status_of_a_newer_version_reads_as_down(status: int) -> None:
    """What is not understood must not take traffic."""
    message = model_pb2.Instance(id="a", host="h", port=1, weight=1.0)
    message.status = status  # type: ignore[assignment]
    assert codec.instance_from_wire(message).status is Status.DOWN


def test_encoding_does_not_depend_on_the_order_of_metadata() -> None:
    """Equal instances have equal bytes, so that digests of replicas agree."""
    one = model_pb2.Instance(metadata={"a": "1", "b": "2", "c": "3"})
    other = model_pb2.Instance(metadata={"c": "3", "b": "2", "a": "1"})
    assert codec.encode(one) == codec.encode(other)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0b"])
def test_what_is_no_message_is_an_invalid_argument(body: bytes) -> None:
    """Truncated, mutated and not UTF-8: one documented error, which names the type."""
    with pytest.raises(InvalidArgumentError) as error:
        codec.decode(model_pb2.ServiceKey, body)
    assert error.value.fields == {"type": "ServiceKey"}


def _all_errors() -> list[type[SsGovernError]]:
    return [kind for kind in SsGovernError.__subclasses__() if "code" in vars(kind)]


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_errors_come_back_as_they_went(kind: type[SsGovernError]) -> None:
    """Class, code, retry, message and fields of an error survive the wire."""
    error = (
        CorruptionError("m", segment="s", offset=1, shard=2)
        if kind is CorruptionError
        else kind("m", limit=7)
    )
    message = native_pb2.Error.FromString(codec.encode(codec.error_to_wire(error)))
    back = codec.error_from_message(message)
    assert (back.code, back.retry, back.message) == (error.code, error.retry, error.message)
    assert dict(back.fields).items() >= dict(error.fields).items()
    if kind is not CorruptionError:
        assert type(back) is kind


def test_codes_are_unique() -> None:
    """A code names one kind of error."""
    codes = [kind.code for kind in _all_errors()]
    assert len(codes) == len(set(codes))
    assert set(codes) == set(ErrorCode)


def test_an_error_of_a_newer_version() -> None:
    """An unknown code keeps its number; an unknown retry means never."""
    error = error_from_wire(999, 77, "new", {"a": "b"})
    assert error.fields == {"a": "b", "code": "999"}
    assert error.retry is Retry.NEVER
