"""Encodings made by hand are those of protobuf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssgovern.model import ServiceKey, SessionId
from ssgovern.wire import handmade
from ssgovern.wire.codec import encode, key_to_wire
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2, peer_pb2
from ssgovern.wire.records import Registered, decode_record, encode_record, registered_of

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1))
POSITIVE = st.one_of(st.integers(1, 300), st.integers(1, 2**63 - 1))
NAMES = st.text("abcdefgh-é中", min_size=1, max_size=90)
IDENTITIES = st.binary(min_size=1, max_size=16)
INSTANCES = st.builds(
    model_pb2.Instance,
    id=NAMES,
    host=NAMES,
    port=st.integers(1, 65535),
    weight=st.floats(0, 100),
    status=st.sampled_from(list(model_pb2.Status.values())),
    zone=st.text(max_size=200),
    persistent=st.booleans(),
    metadata=st.dictionaries(NAMES, st.text(max_size=200), max_size=4),
)


@given(NUMBERS)
def test_varint(number: int) -> None:
    """A number reads as itself."""
    encoded = b"\x18" + handmade.varint(number)
    assert native_pb2.RegisterResult.FromString(encoded).revision == number


@given(POSITIVE, NAMES, NAMES, NAMES, INSTANCES, IDENTITIES)
def test_registered_record(
    time_ms: int,
    namespace: str,
    group: str,
    service: str,
    instance: model_pb2.Instance,
    session_id: bytes,
) -> None:
    """The body of a registration's log entry is that of the message, byte by byte."""
    key = ServiceKey(namespace, group, service)
    message = log_pb2.Record(
        time_ms=time_ms,
        registered=log_pb2.InstanceRegistered(
            service=key_to_wire(key), instance=instance, session_id=session_id
        ),
    )
    made = handmade.registered_record(time_ms, key, encode(instance), session_id)
    assert made == encode(message)


@given(INSTANCES, POSITIVE, POSITIVE, st.booleans())
def test_registered_instance(
    instance: model_pb2.Instance, revision: int, time_ms: int, out_of_service: bool
) -> None:
    """What the node sets is set, whatever the client had put there; the rest is the client's."""
    lie = model_pb2.Instance()
    lie.CopyFrom(instance)
    lie.unhealthy, lie.out_of_service = True, True
    lie.revision, lie.registered_at_ms = 77, 88
    made = handmade.registered_instance(
        encode(lie), revision, time_ms, out_of_service=out_of_service
    )
    instance.revision, instance.registered_at_ms = revision, time_ms
    instance.out_of_service = out_of_service
    assert model_pb2.Instance.FromString(made) == instance


@given(NAMES, POSITIVE, POSITIVE)
def test_register_response(instance_id: str, epoch: int, revision: int) -> None:
    """An answer is that of the message; answers joined are the answer of the batch."""
    result = native_pb2.RegisterResult(instance_id=instance_id, epoch=epoch, revision=revision)
    made = handmade.register_response(instance_id, epoch, revision)
    assert made == encode(native_pb2.RegisterResponse(results=[result]))
    joined = native_pb2.RegisterResponse.FromString(made + made)
    assert list(joined.results) == [result, result]


@given(POSITIVE, INSTANCES, IDENTITIES)
def test_a_registration_is_read_back_as_it_was(
    time_ms: int, instance: model_pb2.Instance, session_id: bytes
) -> None:
    """Who replays the log applies the very bytes that the primary applied."""
    record = Registered(
        ServiceKey("n", "g", "s"),
        instance.id,
        encode(instance),
        SessionId(session_id),
        time_ms,
        persistent=instance.persistent,
        in_traffic=instance.status == model_pb2.STATUS_UP and instance.weight > 0,
    )
    body = encode_record(record)
    for read in (decode_record(body), registered_of(log_pb2.Record.FromString(body))):
        assert isinstance(read, Registered)
        for name in Registered.__slots__:
            assert getattr(read, name) == getattr(record, name), name


@pytest.mark.parametrize("kind", ["deregistered", "updated", "session_ended", "epoch_started"])
def test_other_records_stay_messages(kind: str) -> None:
    """Only registrations have a form of their own."""
    record = log_pb2.Record(time_ms=5)
    getattr(record, kind).SetInParent()
    assert decode_record(encode_record(record)) == record


BELOW_SHARDS = st.integers(0, 255)


@given(
    NUMBERS,
    st.lists(
        st.tuples(
            BELOW_SHARDS,
            NUMBERS,
            st.tuples(NUMBERS, NUMBERS),
            NUMBERS,
            st.lists(st.binary(max_size=200), max_size=4),
            st.lists(NUMBERS, max_size=4),
        ),
        max_size=3,
    ),
    st.lists(st.tuples(BELOW_SHARDS, NUMBERS, NUMBERS, NUMBERS), max_size=3),
)
def test_replication_batch(
    node_epoch: int,
    appends: list[tuple[int, int, tuple[int, int], int, list[bytes], list[int]]],
    appended: list[tuple[int, int, int, int]],
) -> None:
    """A batch with its messages is that of the message, byte by byte."""
    message = peer_pb2.ReplicationBatch(
        node_epoch=node_epoch,
        appends=[
            peer_pb2.AppendEntries(
                shard=shard,
                epoch=epoch,
                prev_epoch=prev[0],
                prev_revision=prev[1],
                committed=committed,
                bodies=bodies,
                epochs=epochs,
            )
            for shard, epoch, prev, committed, bodies, epochs in appends
        ],
        appended=[
            peer_pb2.Appended(shard=shard, epoch=epoch, held=held, version=version)
            for shard, epoch, held, version in appended
        ],
    )
    parts = [handmade.replication_batch(node_epoch)]
    parts += [handmade.append_entries(*fields) for fields in appends]
    parts += [handmade.appended(*fields) for fields in appended]
    assert b"".join(parts) == encode(message)
