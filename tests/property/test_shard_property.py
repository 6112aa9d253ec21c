"""A shard against a model that is too simple to be wrong, and against its own snapshot."""

from __future__ import annotations

from builders import (
    BILLING,
    ORDERS,
    deregistered,
    ended,
    epoch_started,
    registered,
    updated,
)
from hypothesis import given
from hypothesis import strategies as st

from ssgovern.model import ServiceKey, ShardId
from ssgovern.registry.snapshot import capture, digest_chunks, encode_chunks, restore
from ssgovern.registry.state import ShardState
from ssgovern.wire.pb import log_pb2, model_pb2

SESSIONS = st.sampled_from(["s", "t", "u"])
IDS = st.sampled_from(["a", "b", "c", "d"])
KEYS = st.sampled_from([ORDERS, BILLING])
RECORDS = st.one_of(
    st.builds(
        registered, SESSIONS, IDS, key=KEYS, persistent=st.booleans(), weight=st.floats(0.0, 100.0)
    ),
    st.builds(
        deregistered,
        SESSIONS,
        IDS,
        key=KEYS,
        any_owner=st.booleans(),
        if_revision=st.sampled_from([0, 0, 0, 1, 2, 5]),
    ),
    st.builds(
        updated,
        SESSIONS,
        IDS,
        key=KEYS,
        any_owner=st.booleans(),
        out_of_service=st.booleans(),
        weight=st.floats(0.0, 100.0),
    ),
    st.builds(ended, SESSIONS),
    st.builds(epoch_started),
)
LOGS = st.lists(RECORDS, max_size=60)


class Naive:
    """Every rule of the registry once more, as plainly as can be."""

    def __init__(self) -> None:
        self.revision = 0
        self.instances: dict[tuple[ServiceKey, str], dict[str, object]] = {}
        self.marks: set[tuple[ServiceKey, str]] = set()

    def apply(self, record: log_pb2.Record) -> None:
        self.revision += 1
        kind = record.WhichOneof("change")
        change = getattr(record, kind or "")
        if kind == "session_ended":
            for at, found in list(self.instances.items()):
                if found["owner"] != change.session_id:
                    continue
                if found["persistent"]:
                    found.update(owner=b"", unhealthy=True, revision=self.revision)
                else:
                    del self.instances[at]
            return
        if kind == "epoch_started":
            return
        key = ServiceKey(change.service.namespace, change.service.group, change.service.service)
        if kind == "registered":
            at = (key, change.instance.id)
            self.instances[at] = {
                "owner": change.session_id,
                "persistent": change.instance.persistent,
                "weight": change.instance.weight,
                "unhealthy": False,
                "out": at in self.marks,
                "revision": self.revision,
            }
            return
        at = (key, change.instance_id)
        found = self.instances.get(at)
        if found is None:
            return
        if not change.any_owner and found["owner"] not in (b"", change.session_id):
            return
        if change.if_revision and change.if_revision != found["revision"]:
            return
        if kind == "deregistered":
            del self.instances[at]
            return
        out = change.change.out_of_service
        found.update(weight=change.change.weight, out=out, revision=self.revision)
        (self.marks.add if out else self.marks.discard)(at)

    def describe(self) -> dict[tuple[ServiceKey, str], tuple[object, ...]]:
        return {
            at: (f["owner"], f["persistent"], f["weight"], f["unhealthy"], f["out"], f["revision"])
            for at, f in self.instances.items()
        }


def describe(state: ShardState) -> dict[tuple[ServiceKey, str], tuple[object, ...]]:
    described = {}
    for entry in state.entries():
        found = model_pb2.Instance.FromString(entry.encoded)
        described[entry.service.key, entry.id] = (
            entry.session_id,
            found.persistent,
            found.weight,
            found.unhealthy,
            found.out_of_service,
            found.revision,
        )
    return described


def applied(state: ShardState, log: list[log_pb2.Record]) -> ShardState:
    for record in log:
        copy = log_pb2.Record.FromString(record.SerializeToString())
        state.apply(1, state.position.revision + 1, copy)
    state.validate()
    return state


@given(LOGS)
def test_a_shard_does_what_the_model_does(log: list[log_pb2.Record]) -> None:
    """Whatever is in the log, the state is what the plain rules say."""
    state = ShardState(ShardId(0))
    naive = Naive()
    for record in log:
        naive.apply(record)
        applied(state, [record])
        assert describe(state) == naive.describe()
    marks = {(k, i) for k, service in state.services.items() for i in service.out_of_service}
    assert marks == naive.marks


@given(LOGS, st.integers(0, 60))
def test_a_snapshot_and_the_rest_of_the_log_make_the_same_state(
    log: list[log_pb2.Record], cut: int
) -> None:
    """A replica that starts from a snapshot is, byte for byte, one that applied everything."""
    straight = applied(ShardState(ShardId(0)), log)
    before = applied(ShardState(ShardId(0)), log[:cut])
    chunks = list(encode_chunks(capture(before)))
    restored = ShardState(ShardId(0))
    restore(restored, before.position, chunks)
    restored.validate()
    applied(restored, log[cut:])
    assert restored.position == straight.position
    assert restored.epoch_starts == straight.epoch_starts
    assert digest_chunks(restored) == digest_chunks(straight)


@given(LOGS, LOGS)
def test_a_captured_shard_does_not_move(
    log: list[log_pb2.Record], later: list[log_pb2.Record]
) -> None:
    """What was captured is encoded as it was, though the state goes on meanwhile."""
    state = applied(ShardState(ShardId(0)), log)
    expected = list(encode_chunks(capture(state)))
    captured = capture(state)
    applied(state, later)
    assert list(encode_chunks(captured)) == expected
