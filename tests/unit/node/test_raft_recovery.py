"""A candidate that decides alone begins a life that is newer than all that anybody knows."""

from __future__ import annotations

import pytest
from stopped import DATA, SHARD, StoppedMachine, crash_everywhere, make_node, run, start_of

from ssgovern import limits
from ssgovern.controller.codec import decode_snapshot, encode_entry
from ssgovern.controller.controller import Controller
from ssgovern.controller.nodes import Registration
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.state import (
    Founded,
    Node,
    NodeRegistered,
    Record,
    RowsChanged,
    Settings,
)
from ssgovern.errors import ConfigError
from ssgovern.model import LogPosition, NodeId
from ssgovern.node import identity as identities
from ssgovern.node.raft_recovery import look_at, recover_alone
from ssgovern.node.raft_storage import RaftStorage, Recovered
from ssgovern.raft import Config, Entry, HardState, Ready, Snapshot

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
JUMP = limits.EPOCHS_PER_LIFE


def node(number: int) -> Node:
    return Node(
        NodeId(number),
        f"n{number}",
        f"10.0.0.{number}:7420",
        "",
        bytes([number]) * 16,
        b"boot",
        session=5,
        candidate=True,
    )


RECORDS = [
    Record("", Founded(b"c" * 16, Settings(copies=3, min_in_sync=2))),
    *(Record("", NodeRegistered(node(number))) for number in (1, 2, 3)),
    Record(
        "",
        RowsChanged(),
        ((SHARD, ShardRow(9, 20, TWO, (ONE, TWO, THREE), (ONE, TWO), ())),),
    ),
]


async def make_candidate(machine: StoppedMachine) -> None:
    identity = await make_node(machine, [start_of(SHARD)], clustered=True)
    root = machine.open_disk(DATA)
    await identities.change(root, identity, identity._replace(candidate=True))
    storage, _ = await open_storage(machine, first=Snapshot(config=Config((ONE, TWO, THREE))))
    written = (Entry(1, 4, None), Entry(2, 4, encode_entry(RECORDS)))
    await storage.write(Ready(None, HardState(4, TWO), written, (), (0, 0), (), (), ()))
    await storage.mark()


async def open_storage(
    machine: StoppedMachine, first: Snapshot | None = None
) -> tuple[RaftStorage, Recovered]:
    log = machine.open_disk(f"{DATA}/metadata")
    snapshots = machine.open_disk(f"{DATA}/metadata-snapshots")
    return await RaftStorage.open(log, snapshots, b"\1" * 16, first=first)


def candidate() -> StoppedMachine:
    machine = StoppedMachine()
    run(make_candidate(machine))
    return machine


async def recover(machine: StoppedMachine, *voters: NodeId) -> None:
    await recover_alone(machine.open_disk, DATA, machine, voters or (ONE,))  # type: ignore[arg-type]


def test_everything_that_rises_is_raised() -> None:
    """Term, index, map version, epochs, versions and sessions are beyond what others can know."""
    machine = candidate()
    run(recover(machine))
    _, found = run(open_storage(machine))
    assert found.hard_state == HardState(4 + JUMP)
    assert found.snapshot.config == Config((ONE,))
    assert (found.snapshot.index, found.snapshot.term) == (2 + JUMP, 4 + JUMP)
    assert not found.entries
    state, index = decode_snapshot(found.snapshot.payload)
    assert index == found.snapshot.index
    assert (state.cluster_id, state.settings.copies) == (b"c" * 16, 3)
    assert state.map_version == 1 + JUMP
    assert [each.session for each in state.sorted_nodes()] == [5 + JUMP] * 3
    assert [each.candidate for each in state.sorted_nodes()] == [True, False, False]
    row = state.rows[SHARD]
    assert (row.epoch, row.primary, row.in_sync, row.eligible) == (9 + JUMP, NOBODY, (), (ONE, TWO))
    assert row.version == 20 + JUMP


def test_the_cluster_goes_on_from_there() -> None:
    """A node registers again, even in the same life of its process, and its shards are served."""
    machine = candidate()
    run(recover(machine))
    _, found = run(open_storage(machine))
    state, _ = decode_snapshot(found.snapshot.payload)
    controller = Controller(state, 0.0)
    two = node(2)
    asked = Registration(TWO, two.name, two.address, "", two.directory_id, two.boot_id)
    for record in controller.decide_registration(asked, 0.0).records:
        controller.replay(record, 0.0)
    controller.hear(TWO, 6 + JUMP, 0.0, {SHARD: LogPosition(9, 100)})
    for record in controller.decide_pass(1.0).records:
        controller.replay(record, 1.0)
    assert (state.rows[SHARD].primary, state.rows[SHARD].epoch) == (TWO, 10 + JUMP)
    state.validate()


def test_a_crash_leaves_the_old_log_or_the_new_one() -> None:
    """At any step: what was agreed is there, with the old candidates or the new ones."""

    def check(machine: StoppedMachine) -> None:
        known = run(look_at(machine.open_disk, DATA))
        voters = [each.node for each in known.voters]
        assert known.state.cluster_id == b"c" * 16
        if voters == [ONE, TWO, THREE]:
            assert known.index == 2
            assert known.term in (4, 4 + JUMP)
            run(recover(machine))
            known = run(look_at(machine.open_disk, DATA))
            voters = [each.node for each in known.voters]
        assert voters == [ONE]
        assert known.index == 2 + JUMP

    assert crash_everywhere(candidate, recover, check) > 10


def test_what_was_there_is_kept_aside() -> None:
    """The log as it was is in a folder of its own."""
    machine = candidate()
    before = machine.image(f"{DATA}/metadata").read("wal-0000000000000001.log").rstrip(b"\0")
    run(recover(machine))
    aside = next(path for path in machine.images if path.startswith(f"{DATA}/set-aside-"))
    kept = machine.image(aside).read("metadata.wal-0000000000000001.log").rstrip(b"\0")
    assert len(kept) == len(before)


@pytest.mark.parametrize(
    ("voters", "why"),
    [((TWO,), "has to be a candidate"), ((ONE, NodeId(9)), "was no candidate")],
)
def test_strangers_cannot_be_candidates(voters: tuple[NodeId, ...], why: str) -> None:
    """Only this node and others that were candidates; nothing is written else."""
    machine = candidate()
    with pytest.raises(ConfigError, match=why):
        run(recover(machine, *voters))
    assert run(look_at(machine.open_disk, DATA)).term == 4


def test_only_a_candidate_can_be_recovered() -> None:
    """The directory of another node is refused."""
    machine = StoppedMachine()
    run(make_node(machine, [start_of(SHARD)], clustered=True))
    with pytest.raises(ConfigError, match="not the data directory of a candidate"):
        run(recover(machine))
