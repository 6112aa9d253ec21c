"""The bytes of the metadata log, for ever: every candidate has them on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssgovern.controller.codec import (
    decode_record,
    decode_snapshot,
    encode_record,
    encode_snapshot,
)
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import (
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
from ssgovern.wire.pb import metadata_pb2

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
CHANGES: dict[str, Change] = {
    "founded": Founded(ID, SETTINGS),
    "settings_changed": SettingsChanged(SETTINGS),
    "node_registered": NodeRegistered(NODE),
    "nodes_fenced": NodesFenced((NodeId(1), NodeId(300))),
    "node_marked": NodeMarked(NodeId(300), leaving=True, lost=True),
    "node_removed": NodeRemoved(NodeId(300)),
    "rows_changed": RowsChanged(),
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


def test_every_kind_of_record_has_its_bytes() -> None:
    """A new kind of record needs a golden file, and no file is left over."""
    kinds = metadata_pb2.MetadataRecord.DESCRIPTOR.oneofs_by_name["change"].fields
    assert {field.name for field in kinds} == set(CHANGES)
    names = {f"metadata-{name.replace('_', '-')}" for name in (*CHANGES, "snapshot")}
    assert {path.stem for path in GOLDEN.glob("*.hex")} == names


def test_a_record_of_a_newer_version_stops_with_words() -> None:
    """Replaying half of what is meant would be worse than not starting."""
    with pytest.raises(UnsupportedVersionError, match="does not know"):
        decode_record(metadata_pb2.MetadataRecord(reason="new").SerializeToString())


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"\x0b"])
def test_garbage(body: bytes) -> None:
    """What is no message is the documented error."""
    for decode in (decode_record, decode_snapshot):
        with pytest.raises(InvalidArgumentError):
            decode(body)
