"""A repaired directory is one that a node starts on; what it lost is said, and kept aside."""

from __future__ import annotations

import pytest
from stopped import (
    DATA,
    OTHER,
    SHARD,
    StoppedMachine,
    crash_everywhere,
    entries,
    instances_of,
    make_node,
    recovered,
    run,
    start_of,
)

from ssgovern import limits
from ssgovern.errors import ConfigError
from ssgovern.model import ORIGIN, LogPosition, NodeId, ShardId
from ssgovern.node import identity as identities
from ssgovern.node import marks
from ssgovern.node.fsck import Report, check
from ssgovern.node.marks import Damaged, read_damaged
from ssgovern.node.raft_storage import RaftStorage
from ssgovern.node.recovery import recover_replicated
from ssgovern.node.repair import Repaired, finish_repair, forget_votes, repair
from ssgovern.raft import Config, Entry, HardState, Ready, Snapshot
from ssgovern.registry.state import ShardState
from ssgovern.storage.format import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, epoch_promise
from ssgovern.storage.salvage import Salvage
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import log_pb2


def nobody(*_: object) -> None:
    """Nobody wants to know."""


def look(machine: StoppedMachine) -> Report:
    return run(check(lambda name: machine.open_disk(f"{DATA}/{name}" if name else DATA), nobody))


async def mend(machine: StoppedMachine, *, accept_loss: bool = False) -> Repaired | str:
    report = await check(lambda name: machine.open_disk(f"{DATA}/{name}" if name else DATA), nobody)
    if report.unfinished:
        return await finish_repair(machine.open_disk, DATA)
    assert report.left is not None
    return await repair(
        machine.open_disk,
        DATA,
        machine,  # type: ignore[arg-type]
        report.left,
        accept_loss=accept_loss,
        metadata_damaged=report.metadata_damaged,
    )


def node(*, clustered: bool) -> StoppedMachine:
    """A node with two shards and a snapshot of one; the other's second entry is damaged."""
    machine = StoppedMachine()
    whole = [start_of(OTHER), *entries(OTHER, ["x", "y"]), epoch_promise(SHARD, 4)]
    log = [start_of(SHARD), *entries(SHARD, ["a", "b", "c"]), *whole]
    log += entries(OTHER, ["z"], first=4)
    run(make_node(machine, log, snapshots=[state_of(OTHER, 3)], clustered=clustered))
    return machine


def state_of(shard: ShardId, revision: int) -> ShardState:
    state = ShardState(shard)
    for record in [start_of(shard), *entries(shard, ["x", "y"])][:revision]:
        state.apply(record.epoch, record.revision, log_pb2.Record.FromString(record.body))
    return state


def damaged(*, clustered: bool) -> StoppedMachine:
    machine = node(clustered=clustered)
    first = len(start_of(SHARD).body)
    second = len(entries(SHARD, ["a"])[0].body)
    # In the body of the third record, which registers "b".
    offset = SEGMENT_HEADER_BYTES + 3 * RECORD_HEADER_BYTES + first + second + 5
    machine.image(f"{DATA}/wal").flip_bit("wal-0000000000000001.log", offset, 2)
    return machine


def test_a_whole_directory_is_not_touched() -> None:
    """Nothing is damaged, nothing is changed by looking."""
    machine = node(clustered=False)
    before = machine.content()
    report = look(machine)
    assert not report.is_damaged
    assert not report.can_be_repaired
    after = machine.content()
    assert {path: files for path, files in after.items() if files} == {
        path: files for path, files in before.items() if files
    }


def test_damage_is_told_with_what_it_means() -> None:
    """Where, which shards, and what to do: different for a node of a cluster and a single one."""
    report = look(damaged(clustered=True))
    assert report.is_damaged
    assert "shard 7" in str(report.findings) or "shards" in str(report.findings)
    assert any("fetches these shards anew" in finding.todo for finding in report.findings)
    report = look(damaged(clustered=False))
    assert any("--accept-loss" in finding.todo for finding in report.findings)
    # OTHER went on behind the damage, with what its snapshot has: it is whole.
    doubted = [shard.shard for shard in report.in_doubt]
    assert SHARD in doubted
    assert OTHER not in doubted


def check_clustered(machine: StoppedMachine) -> None:
    """Either the damage is still there and the node refuses, or the repair is whole."""
    root = machine.open_disk(DATA)
    if marks.REPAIRING in root.names():
        with pytest.raises(ConfigError, match="repair of the data directory was not finished"):
            run(identities.load_or_create(root, NodeId(1), machine, clustered=True))  # type: ignore[arg-type]
    if look(machine).is_damaged:
        run(mend(machine))
    assert not look(machine).is_damaged
    found = run(
        recover_replicated(
            machine.open_disk(f"{DATA}/wal"),
            machine.open_disk(f"{DATA}/snapshots"),
            b"\1" * 16,
            1 << 20,
            nobody,
        )
    )
    assert found.logs[SHARD].tail == ORIGIN
    assert found.promises[SHARD] == 4
    assert found.logs[OTHER].tail == LogPosition(1, 4)
    assert instances_of(found.states[OTHER]) == ["x", "y"]
    lost = read_damaged(root)
    assert SHARD in lost.shards
    assert OTHER not in lost.shards
    assert identities.read(root).cluster_id == b"c" * 16
    assert_kept_aside(machine)


def assert_kept_aside(machine: StoppedMachine) -> None:
    aside = [path for path in machine.images if path.startswith(f"{DATA}/set-aside-")]
    assert len(aside) == 1
    kept = machine.image(aside[0])
    original = damaged(clustered=True).image(f"{DATA}/wal").read("wal-0000000000000001.log")
    found = kept.read("wal.wal-0000000000000001.log")
    assert found.rstrip(b"\0")[-40:] == original.rstrip(b"\0")[-40:]


def test_a_node_of_a_cluster_gives_up_what_it_lost_and_keeps_the_rest() -> None:
    """After a crash at any step: refused, or repaired, with every damaged byte kept aside."""
    assert crash_everywhere(lambda: damaged(clustered=True), mend, check_clustered) > 15


def test_a_single_node_loses_nothing_without_being_asked() -> None:
    """The loss is refused, and nothing was changed."""
    machine = damaged(clustered=False)
    before = machine.content()
    with pytest.raises(ConfigError, match="--accept-loss"):
        run(mend(machine))
    assert {path: files for path, files in machine.content().items() if files} == {
        path: files for path, files in before.items() if files
    }


def test_a_single_node_goes_on_in_a_new_life() -> None:
    """It keeps what stands before the damage; no epoch is used twice, and the cluster is new."""

    def check_single(machine: StoppedMachine) -> None:
        if look(machine).is_damaged:
            run(mend(machine, accept_loss=True))
        found = run(recovered(machine))
        assert instances_of(found.states[SHARD]) == ["a"]
        assert instances_of(found.states[OTHER]) == ["x", "y", "z"]
        assert found.wal.promises[SHARD] == 4 + limits.EPOCHS_PER_LIFE
        assert identities.read(machine.open_disk(DATA)).cluster_id != b"c" * 16
        assert not read_damaged(machine.open_disk(DATA))
        assert not look(machine).is_damaged

    async def work(machine: StoppedMachine) -> None:
        await mend(machine, accept_loss=True)

    assert crash_everywhere(lambda: damaged(clustered=False), work, check_single) > 15


def test_a_damaged_snapshot_empties_only_its_shard() -> None:
    """All other shards stay as they are."""
    machine = node(clustered=True)
    image = machine.image(f"{DATA}/snapshots")
    # The log of the shard does not reach back behind the snapshot.
    wal = machine.image(f"{DATA}/wal")
    for name in wal.names():
        wal.remove(name)
    run(rewrite_log(machine))
    image.flip_bit(image.names()[0], image.size(image.names()[0]) - 30, 1)
    report = look(machine)
    assert [shard.shard for shard in report.in_doubt] == [OTHER]
    run(mend(machine))
    assert not look(machine).is_damaged
    assert read_damaged(machine.open_disk(DATA)) == Damaged((OTHER,))
    assert not machine.image(f"{DATA}/snapshots").names()


async def rewrite_log(machine: StoppedMachine) -> None:
    wal = await Wal.recover(
        machine.open_disk(f"{DATA}/wal"), identity=b"\1" * 16, on_record=lambda record: None
    )
    await wal.append([start_of(SHARD), *entries(SHARD, ["a"]), *entries(OTHER, ["z"], first=4)])
    await wal.mark()


# --- a candidate's metadata ------------------------------------------------------------------


async def make_candidate(machine: StoppedMachine) -> None:
    identity = await make_node(machine, [start_of(SHARD)], clustered=True)
    root = machine.open_disk(DATA)
    await identities.change(root, identity, identity._replace(candidate=True))
    storage, _ = await RaftStorage.open(
        machine.open_disk(f"{DATA}/metadata"),
        machine.open_disk(f"{DATA}/metadata-snapshots"),
        identity.node_uuid,
        first=Snapshot(config=Config((NodeId(1), NodeId(2), NodeId(3)))),
    )
    written = (Entry(1, 2, None), Entry(2, 2, b"what was agreed"))
    await storage.write(Ready(None, HardState(2, NodeId(1)), written, (), (0, 0), (), (), ()))
    await storage.mark()


def candidate() -> StoppedMachine:
    machine = StoppedMachine()
    run(make_candidate(machine))
    return machine


def test_a_candidate_that_forgot_its_votes_votes_no_more() -> None:
    """Damaged metadata is set aside; the node is an ordinary one until it was removed and added."""
    machine = candidate()
    assert not look(machine).is_damaged
    image = machine.image(f"{DATA}/metadata")
    name = image.names()[0]
    image.flip_bit(name, SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + 3, 1)
    report = look(machine)
    assert report.metadata_damaged
    assert report.left is None
    run(
        repair(
            machine.open_disk,
            DATA,
            machine,  # type: ignore[arg-type]
            Salvage([]),
            accept_loss=False,
            metadata_damaged=True,
        )
    )
    root = machine.open_disk(DATA)
    assert read_damaged(root) == Damaged(votes=True)
    assert not identities.read(root).candidate
    assert not machine.image(f"{DATA}/metadata").names()
    assert not look(machine).is_damaged


def test_a_candidate_can_be_made_an_ordinary_node() -> None:
    """After a crash at any step it is the one or the other, or the repair has to be finished."""

    def check_votes(machine: StoppedMachine) -> None:
        root = machine.open_disk(DATA)
        if marks.REPAIRING in root.names():
            run(finish_repair(machine.open_disk, DATA))
        if identities.read(root).candidate:
            storage = RaftStorage.open(
                machine.open_disk(f"{DATA}/metadata"),
                machine.open_disk(f"{DATA}/metadata-snapshots"),
                b"\1" * 16,
                first=None,
            )
            assert run(storage)[1].hard_state == HardState(2, NodeId(1))
        else:
            assert read_damaged(root) == Damaged(votes=True)
            assert not machine.image(f"{DATA}/metadata").names()
        assert run(recovered(machine)).states[SHARD].position == LogPosition(1, 1)

    async def work(machine: StoppedMachine) -> None:
        await forget_votes(machine.open_disk, DATA, machine)  # type: ignore[arg-type]

    assert crash_everywhere(candidate, work, check_votes) > 15
    with pytest.raises(ConfigError, match="not the data directory of a candidate"):
        run(work(node(clustered=True)))
