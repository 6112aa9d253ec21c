"""The bytes of the metadata log, for ever: every candidate has them on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssgovern.controller.access import AccessChange, Grant, Role, Token, User
from ssgovern.controller.codec import (
    decode_entry,
    decode_record,
    decode_snapshot,
    encode_entry,
    encode_record,
    encode_snapshot,
    in_sync_from_wire,
    in_sync_to_wire,
    registration_from_wire,
    registration_to_wire,
    resigned_from_wire,
    resigned_to_wire,
)
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import (
    AccessChanged,
    Change,
    ClusterState,
    Founded,
    Node,
    NodeMarked,
    NodeRegistered,
    NodeRemoved,
    NodesFenced,
    Record,
    RowsChanged,
    Settings,
    SettingsChanged,
)
from ssgovern.errors import InvalidArgumentError, UnsupportedVersionError
from ssgovern.model import NodeId, ShardId
from ssgovern.wire.pb import metadata_pb2, peer_pb2

GOLDEN = Path(__file__).parent / "golden"
ID = bytes(range(16))
NODE = Node(
    NodeId(300),
    "n300",
    "[::1]:7420",
    "一区",
    ID,
    ID[::-1],
    7,
    live=False,
    leaving=True,
    lost=True,
    candidate=True,
)
ROW = ShardRow(
    9,
    300,
    NodeId(1),
    (NodeId(1), NodeId(2), NodeId(3), NodeId(300)),
    (NodeId(1), NodeId(2)),
    (NodeId(3),),
    NodeId(300),
    NodeId(3),
    NodeId(2),
)
SETTINGS = Settings(1, 5, 2, 9, 3, 6_000, 70_000, 8_000)
ACCESS = AccessChange(
    users=(User("ann", "$argon2id$", ("admin", "shop"), disabled=True),),
    tokens=(Token("t300", bytes(range(32)), "ann", ("shop",), "构建", 300, 301, revoked=True),),
    roles=(Role("shop", (Grant("prod", "default/shop-*", ("read", "write")),)),),
    removed_users=("bob",),
    removed_tokens=("t1",),
    removed_roles=("old",),
)
CHANGES: dict[str, Change] = {
    "founded": Founded(ID, SETTINGS),
    "settings_changed": SettingsChanged(SETTINGS),
    "node_registered": NodeRegistered(NODE),
    "nodes_fenced": NodesFenced((NodeId(1), NodeId(300))),
    "node_marked": NodeMarked(NodeId(300), leaving=True, lost=True),
    "node_removed": NodeRemoved(NodeId(300)),
    "rows_changed": RowsChanged(),
    "access_changed": AccessChanged(ACCESS),
}


def record_of(name: str) -> Record:
    return Record(f"because of {name}", CHANGES[name], ((ShardId(255), ROW), (ShardId(0), ROW)))


def snapshot_state() -> ClusterState:
    state = ClusterState(2)
    state.replay(Record("", CHANGES["founded"]))
    state.replay(Record("", CHANGES["node_registered"], ((ShardId(1), ROW),)))
    state.replay(Record("", NodeRemoved(NodeId(4))))
    return state


def check_golden(name: str, data: bytes, pytestconfig: pytest.Config) -> None:
    path = GOLDEN / f"metadata-{name.replace('_', '-')}.hex"
    text = data.hex()
    wrapped = "".join(text[start : start + 80] + "\n" for start in range(0, len(text), 80))
    if pytestconfig.getoption("--rewrite-golden"):
        path.write_text(wrapped, encoding="ascii")
    assert wrapped == path.read_text(encoding="ascii")


@pytest.mark.parametrize("name", CHANGES)
def test_records_are_what_they_were(name: str, pytestconfig: pytest.Config) -> None:
    """A record is encoded to the bytes that were checked in, and comes back from them."""
    record = record_of(name)
    check_golden(name, encode_record(record), pytestconfig)
    assert decode_record(encode_record(record)) == record


def test_snapshots_are_what_they_were(pytestconfig: pytest.Config) -> None:
    """A snapshot is encoded to the bytes that were checked in, and is the whole state."""
    state = snapshot_state()
    data = encode_snapshot(state, 300)
    check_golden("snapshot", data, pytestconfig)
    back, index = decode_snapshot(data)
    assert index == 300
    assert (back.cluster_id, back.settings, back.nodes) == (ID, SETTINGS, state.nodes)
    assert (back.rows, back.map_version, back.retired) == (state.rows, 1, {NodeId(4): None})


def test_a_snapshot_has_who_may_do_what(pytestconfig: pytest.Config) -> None:
    """Users, tokens and roles are in a snapshot, as they are after all changes."""
    state = snapshot_state()
    state.replay(Record("", CHANGES["access_changed"]))
    data = encode_snapshot(state, 300)
    check_golden("snapshot-access", data, pytestconfig)
    back, _ = decode_snapshot(data)
    assert back.access.whole() == state.access.whole()
    assert back.access.users["ann"] == ACCESS.users[0]


def test_every_kind_of_record_has_its_bytes() -> None:
    """A new kind of record needs a golden file, and no file is left over."""
    kinds = metadata_pb2.MetadataRecord.DESCRIPTOR.oneofs_by_name["change"].fields
    assert {field.name for field in kinds} == set(CHANGES)
    names = {
        f"metadata-{name.replace('_', '-')}" for name in (*CHANGES, "snapshot", "snapshot-access")
    }
    assert {path.stem for path in GOLDEN.glob("*.hex")} == names


def test_a_record_of_a_newer_version_stops_with_words() -> None:
    """Replaying half of what is meant would be worse than not starting."""
    with pytest.raises(UnsupportedVersionError, match="does not know"):
        decode_record(metadata_pb2.MetadataRecord(reason="new").SerializeToString())


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"\x0b"])
def test_garbage(body: bytes) -> None:
    """What is no message is the documented error."""
    for decode in (decode_record, decode_snapshot, decode_entry):
        with pytest.raises(InvalidArgumentError):
            decode(body)


def test_an_entry_holds_what_was_decided_together() -> None:
    """Records of one entry come back in order; an entry of the consensus' own has none."""
    records = [record_of(name) for name in CHANGES]
    assert decode_entry(encode_entry(records)) == records
    assert decode_entry(b"") == []


REGISTRATION = Registration(
    NodeId(300),
    "n300",
    "[::1]:7420",
    "一区",
    ID,
    ID[::-1],
    directory_cluster_id=ID,
    formats=(1, 2),
    damaged=(ShardId(0), ShardId(255)),
    candidate=True,
)
IN_SYNC = InSyncRequest(ShardId(255), NodeId(300), 7, 9, 301, ((NodeId(1), 2), (NodeId(300), 7)))
RESIGNED = Resigned(ShardId(255), NodeId(300), 7, 9, 301)


def test_requests_come_back() -> None:
    """What a node asks of the controller is what the controller's core is asked."""
    assert registration_from_wire(registration_to_wire(REGISTRATION)) == REGISTRATION
    assert in_sync_from_wire(in_sync_to_wire(IN_SYNC)) == IN_SYNC
    assert resigned_from_wire(resigned_to_wire(RESIGNED)) == RESIGNED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 257),
        ("address", "a" * 300),
        ("zone", "z" * 129),
        ("directory_id", b""),
        ("boot_id", bytes(33)),
    ],
)
def test_a_node_that_says_too_much(field: str, value: object) -> None:
    """What would have to be kept for ever is bounded, and the refusal names it."""
    message = registration_to_wire(REGISTRATION)
    setattr(message.node, field, value)
    with pytest.raises(InvalidArgumentError, match=field):
        registration_from_wire(message)


def test_shards_that_do_not_exist() -> None:
    """A shard beyond the last is refused wherever it is named."""
    with pytest.raises(InvalidArgumentError, match="shards are numbered"):
        registration_from_wire(
            peer_pb2.NodeRegisterRequest(
                node=registration_to_wire(REGISTRATION).node, damaged=[256]
            )
        )
    with pytest.raises(InvalidArgumentError, match="shards are numbered"):
        in_sync_from_wire(peer_pb2.InSyncChangeRequest(shard=256))
    with pytest.raises(InvalidArgumentError, match="shards are numbered"):
        resigned_from_wire(peer_pb2.ShardResignedRequest(shard=256))


def test_an_in_sync_set_without_end() -> None:
    """A set with more members than a shard can have holders is refused."""
    members = [peer_pb2.InSyncMember(node_id=node) for node in range(1, 20)]
    with pytest.raises(InvalidArgumentError, match="at most"):
        in_sync_from_wire(peer_pb2.InSyncChangeRequest(shard=1, members=members))
