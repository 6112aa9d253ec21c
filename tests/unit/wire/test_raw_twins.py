"""Messages that carry encoded instances are, on the wire, those that carry instances."""

from __future__ import annotations

import pytest
from builders import ORDERS, instance
from google.protobuf.message import Message

from ssgovern.wire.codec import encode, key_to_wire
from ssgovern.wire.pb import model_pb2, native_pb2, raw_pb2

KEY = key_to_wire(ORDERS)
INSTANCES = [instance("a", metadata={"k": "v"}), instance("b", weight=0.0)]
ENCODED = [encode(item) for item in INSTANCES]

PAIRS: list[tuple[Message, Message]] = [
    (
        native_pb2.GetResponse(epoch=1, revision=2, instances=INSTANCES),
        raw_pb2.RawGetResponse(epoch=1, revision=2, instances=ENCODED),
    ),
    (
        native_pb2.Snapshot(service=KEY, epoch=1, revision=2, instances=INSTANCES),
        raw_pb2.RawSnapshot(service=KEY, epoch=1, revision=2, instances=ENCODED),
    ),
    (
        native_pb2.Delta(
            service=KEY, epoch=1, since=2, revision=3, upserted=INSTANCES, removed=["c"]
        ),
        raw_pb2.RawDelta(
            service=KEY, epoch=1, since=2, revision=3, upserted=ENCODED, removed=["c"]
        ),
    ),
]


@pytest.mark.parametrize(("original", "twin"), PAIRS)
def test_twins_have_the_same_bytes(original: Message, twin: Message) -> None:
    """Encoding a twin gives what encoding the original gives, and decodes as it."""
    assert encode(twin) == encode(original)
    assert type(original).FromString(twin.SerializeToString()) == original


@pytest.mark.parametrize(("original", "twin"), PAIRS)
def test_twins_have_the_same_fields(original: Message, twin: Message) -> None:
    """Number, name, label and type are equal, but that instances are bytes in the twin."""

    def shape(message: Message, instances_as: int) -> list[tuple[object, ...]]:
        return [
            (
                field.number,
                field.name,
                field.is_repeated,
                instances_as if field.message_type is model_pb2.Instance.DESCRIPTOR else field.type,
            )
            for field in message.DESCRIPTOR.fields
        ]

    bytes_type = raw_pb2.RawSnapshot.DESCRIPTOR.fields_by_name["instances"].type
    assert shape(original, bytes_type) == shape(twin, bytes_type)


def test_every_twin_is_compared() -> None:
    """A new twin needs a pair here."""
    compared = {twin.DESCRIPTOR.name for _, twin in PAIRS}
    assert compared == set(raw_pb2.DESCRIPTOR.message_types_by_name)
