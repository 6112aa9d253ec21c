"""Messages that carry encoded instances are, on the wire, those that carry instances."""

from __future__ import annotations

import pytest
from builders import ORDERS, instance, registered
from google.protobuf.message import Message

from ssgovern.wire.codec import encode, key_to_wire
from ssgovern.wire.pb import model_pb2, native_pb2, raw_pb2

KEY = key_to_wire(ORDERS)
INSTANCES = [instance("a", metadata={"k": "v"}), instance("b", weight=0.0)]
ENCODED = [encode(item) for item in INSTANCES]


def _record_pairs() -> list[tuple[Message, Message]]:
    record = registered("s", "a", metadata={"k": "v"})
    change = record.registered
    twin = raw_pb2.RawInstanceRegistered(
        service=encode(change.service),
        instance=encode(change.instance),
        session_id=change.session_id,
    )
    some = model_pb2.Instance(
        id="a", weight=1.0, status=model_pb2.STATUS_DOWN, persistent=True, lease_ms=300
    )
    return [
        (change, twin),
        (record, raw_pb2.RawRecord(time_ms=record.time_ms, registered=twin)),
        (
            some,
            raw_pb2.RawInstance(
                id=some.id,
                weight=some.weight,
                status=some.status,
                persistent=some.persistent,
                lease_ms=some.lease_ms,
            ),
        ),
    ]


PAIRS: list[tuple[Message, Message]] = [
    (
        native_pb2.GetResponse(epoch=1, revision=2, instances=INSTANCES, service_revision=2),
        raw_pb2.RawGetResponse(epoch=1, revision=2, instances=ENCODED, service_revision=2),
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

if hasattr(raw_pb2, "RawRecord"):
    PAIRS += _record_pairs()


@pytest.mark.parametrize(("original", "twin"), PAIRS)
def test_twins_have_the_same_bytes(original: Message, twin: Message) -> None:
    """Encoding a twin gives what encoding the original gives, and decodes as it."""
    assert encode(twin) == encode(original)
    assert type(original).FromString(twin.SerializeToString()) == original


@pytest.mark.parametrize(("original", "twin"), PAIRS)
def test_twins_have_the_same_fields(original: Message, twin: Message) -> None:
    """Number, name, label and type are equal, but that some messages are bytes in the twin."""
    bytes_type = raw_pb2.RawSnapshot.DESCRIPTOR.fields_by_name["instances"].type
    theirs = original.DESCRIPTOR.fields_by_number
    for field in twin.DESCRIPTOR.fields:
        of = theirs[field.number]
        as_bytes = of.message_type is not None and field.type == bytes_type
        assert (field.name, field.is_repeated) == (of.name, of.is_repeated)
        assert as_bytes or field.type == of.type
        assert as_bytes or of.message_type is not model_pb2.Instance.DESCRIPTOR
    # A record has other kinds of entries besides, and of an instance few fields have to be known,
    # which is only ever read; all other twins are complete.
    left_out = sorted(set(theirs) - set(twin.DESCRIPTOR.fields_by_number))
    assert original.DESCRIPTOR is model_pb2.Instance.DESCRIPTOR or all(
        theirs[number].containing_oneof is not None for number in left_out
    )


def test_every_twin_is_compared() -> None:
    """A new twin needs a pair here."""
    compared = {twin.DESCRIPTOR.name for _, twin in PAIRS}
    assert compared == set(raw_pb2.DESCRIPTOR.message_types_by_name)
