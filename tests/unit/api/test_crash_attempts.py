"""Requests that fit a frame but not the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from builders import ORDERS, instance
from google.protobuf.message import Message
from nodes import RefusedError, Stage, simulate

from ssgovern import limits
from ssgovern.errors import ErrorCode
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

Build: TypeAlias = Callable[[int], tuple[int, Message]]


def long_deregister(length: int) -> tuple[int, Message]:
    return MessageType.DEREGISTER, native_pb2.DeregisterRequest(
        service=key_to_wire(ORDERS), instance_id="x" * length
    )


def long_update(length: int) -> tuple[int, Message]:
    return MessageType.UPDATE, native_pb2.UpdateRequest(
        service=key_to_wire(ORDERS), instance_id="x" * length
    )


def long_key_to_remove(length: int) -> tuple[int, Message]:
    request = native_pb2.UpdateRequest(service=key_to_wire(ORDERS), instance_id="a")
    request.change.metadata_remove.append("x" * length)
    return MessageType.UPDATE, request


def unknown_field(length: int) -> bytes:
    """A field number 999 that no message has, of `length` bytes."""
    head = b""
    for number in (999 << 3 | 2, length):
        while number > 0x7F:
            head += bytes([number & 0x7F | 0x80])
            number >>= 7
        head += bytes([number])
    return head + b"x" * length


def stuffed_key_of_deregister(length: int) -> tuple[int, Message]:
    request = native_pb2.DeregisterRequest(service=key_to_wire(ORDERS), instance_id="a")
    request.service.MergeFromString(unknown_field(length))
    return MessageType.DEREGISTER, request


def stuffed_key_of_register(length: int) -> tuple[int, Message]:
    request = native_pb2.RegisterRequest()
    registration = request.registrations.add(service=key_to_wire(ORDERS), instance=instance("a"))
    registration.service.MergeFromString(unknown_field(length))
    return MessageType.REGISTER, request


def stuffed_change(length: int) -> tuple[int, Message]:
    request = native_pb2.UpdateRequest(service=key_to_wire(ORDERS), instance_id="a")
    request.change.MergeFromString(unknown_field(length))
    return MessageType.UPDATE, request


def filled(build: Build) -> tuple[int, bytes]:
    """Return the longest request of its make that a node takes as a frame."""
    length = limits.FRAME_BODY_BYTES_MAX
    length -= build(length)[1].ByteSize() - limits.FRAME_BODY_BYTES_MAX
    type_, request = build(length)
    return type_, request.SerializeToString()


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (long_deregister, ErrorCode.LIMIT_EXCEEDED),
        (long_update, ErrorCode.LIMIT_EXCEEDED),
        (long_key_to_remove, ErrorCode.LIMIT_EXCEEDED),
        (stuffed_change, ErrorCode.LIMIT_EXCEEDED),
        # What a newer client adds to a key is not kept: nothing is wrong with these.
        (stuffed_key_of_deregister, None),
        (stuffed_key_of_register, None),
    ],
)
def test_what_fits_a_frame_never_breaks_the_log(build: Build, code: ErrorCode | None) -> None:
    """A request of the longest frame is refused or done, and the node goes on."""
    type_, body = filled(build)
    assert len(body) == limits.FRAME_BODY_BYTES_MAX

    async def body_of_test(stage: Stage) -> None:
        client = await stage.client("a")
        refused = None
        try:
            await client.ask(type_, body)
        except RefusedError as error:
            refused = error.code
        assert refused == code
        assert (await client.register("b")).results[0].revision > 0

    simulate(body_of_test)
