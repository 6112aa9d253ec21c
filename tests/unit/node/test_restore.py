"""What was backed up is what a restored node has, and nothing of its old life counts any more."""

from __future__ import annotations

import random

import pytest
from stopped import (
    DATA,
    OTHER,
    SHARD,
    StoppedMachine,
    crash_everywhere,
    digests,
    entries,
    instances_of,
    make_node,
    recovered,
    run,
    start_of,
)

from ssgovern import limits
from ssgovern.controller.standalone import decide_shard_map
from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import LogPosition, NodeId
from ssgovern.node import identity as identities
from ssgovern.node import marks
from ssgovern.node.backup import Longest, longest_of, read_directory, write_states
from ssgovern.node.restore import restore_backup
from ssgovern.sim.disk import PowerCut
from ssgovern.storage.backup import Backup, BackupWriter, Manifest
from ssgovern.storage.format import epoch_promise

NEW = "/new"
BACKUPS = "/backups"
NAME = "b.ssgb"
EPOCH = 5 + limits.EPOCHS_PER_LIFE


def nobody(*_: object) -> None:
    """Nobody wants to know."""


async def read(machine: StoppedMachine, *paths: str) -> Longest:
    return longest_of(
        [
            await read_directory(
                machine.open_disk(path),
                machine.open_disk(f"{path}/wal"),
                machine.open_disk(f"{path}/snapshots"),
                nobody,
            )
            for path in paths
        ]
    )


async def back_up(machine: StoppedMachine, *paths: str) -> Manifest:
    writer = BackupWriter(machine.open_disk(BACKUPS), NAME, b"b" * 16)
    return await write_states(writer, await read(machine, *paths), 1, nobody)


async def restore(machine: StoppedMachine) -> None:
    backup = Backup(machine.open_disk(BACKUPS), NAME)
    await restore_backup(backup, machine.open_disk, NEW, NodeId(3), machine, nobody)  # type: ignore[arg-type]


def node() -> StoppedMachine:
    machine = StoppedMachine()
    log = [start_of(SHARD), *entries(SHARD, ["a", "b"]), start_of(OTHER), *entries(OTHER, ["c"])]
    run(make_node(machine, [*log, epoch_promise(OTHER, 5)]))
    return machine


def backed_up() -> StoppedMachine:
    machine = node()
    run(back_up(machine, DATA))
    return machine


def test_a_backup_of_a_directory_changes_nothing_in_it() -> None:
    """Not a byte of the directory is different afterwards."""
    machine = node()
    before = {path: files for path, files in machine.content().items() if files}
    manifest = run(back_up(machine, DATA))
    after = machine.content()
    assert {path: after[path] for path in before} == before
    assert [saved.shard for saved in manifest.shards] == [SHARD, OTHER]
    assert [saved.position for saved in manifest.shards] == [LogPosition(1, 3), LogPosition(1, 2)]
    assert (manifest.instances, manifest.epoch_max) == (3, 5)


def test_what_was_backed_up_is_there_in_a_new_life() -> None:
    """All instances and sessions; a new cluster id; epochs above all that the old life can give."""
    machine = backed_up()
    old = run(recovered(machine))
    run(restore(machine))
    new = run(recovered(machine, NEW))
    assert digests(new.states) == digests(old.states)
    assert new.states[SHARD].owned.keys() == old.states[SHARD].owned.keys()
    assert new.states[SHARD].position == LogPosition(EPOCH, 4)
    identity = identities.read(machine.open_disk(NEW))
    assert identity.cluster_id != b"c" * 16
    assert (identity.node_id, identity.clustered) == (3, False)
    tails = [state.position for state in new.states]
    rows = decide_shard_map(NodeId(3), tails, new.wal.promises).shards
    assert {row.epoch for row in rows} == {EPOCH + 1}


def test_positions_of_the_old_life_are_not_trusted() -> None:
    """Who knows a service at any position of the old life, or of what it became, gets it whole."""
    machine = backed_up()
    run(restore(machine))
    state = run(recovered(machine, NEW)).states[SHARD]
    key = next(iter(state.services))
    for epoch in (1, 5, 6, EPOCH - 1):
        for revision in range(1, 9):
            assert state.catch_up(key, LogPosition(epoch, revision)).kind == "snapshot"


def test_a_crash_in_a_restore_leaves_nobody_s_directory_or_the_new_one() -> None:
    """After a crash at any step the node refuses to start or has everything; again works."""

    def check(machine: StoppedMachine) -> None:
        root = machine.open_disk(NEW)
        if identities.FILE not in root.names():
            if marks.RESTORING in root.names():
                with pytest.raises(ConfigError, match="restore into the data directory was not"):
                    run(identities.load_or_create(root, NodeId(3), machine))  # type: ignore[arg-type]
            run(restore(machine))
        found = run(recovered(machine, NEW))
        assert instances_of(found.states[SHARD]) == ["a", "b"]
        assert instances_of(found.states[OTHER]) == ["c"]
        assert found.wal.promises[0] == EPOCH

    assert crash_everywhere(backed_up, restore, check) > 20


def test_a_restore_replaces_nothing() -> None:
    """A directory with anything in it is refused, and so is one that was restored."""
    machine = backed_up()
    run(restore(machine))
    before = machine.content()
    with pytest.raises(ConfigError, match="not empty"):
        run(restore(machine))
    assert machine.content() == before
    machine = backed_up()
    machine.image(f"{NEW}/wal").append("wal-0000000000000001.log", [b"precious"])
    with pytest.raises(ConfigError, match="not empty"):
        run(restore(machine))


def test_a_damaged_backup_begins_nothing() -> None:
    """A backup is looked at as a whole before anything is written."""
    machine = backed_up()
    machine.image(BACKUPS).flip_bit(NAME, 60, 1)
    with pytest.raises(CorruptionError):
        run(restore(machine))
    assert not machine.image(NEW).names()


def test_of_several_directories_the_longest_logs_are_taken() -> None:
    """What any of the nodes of a cluster has of a shard is in the backup; strangers are refused."""
    machine = StoppedMachine()
    short = [start_of(SHARD), *entries(SHARD, ["a"]), start_of(OTHER), *entries(OTHER, ["x", "y"])]
    long = [start_of(SHARD), *entries(SHARD, ["a", "b"]), start_of(OTHER)]
    run(make_node(machine, short, path="/one", clustered=True))
    run(make_node(machine, long, path="/two", clustered=True, node_id=2))
    run(make_node(machine, long, path="/three", clustered=True, cluster_id=b"d" * 16, node_id=3))
    run(back_up(machine, "/one", "/two"))
    run(restore(machine))
    found = run(recovered(machine, NEW)).states
    assert (instances_of(found[SHARD]), instances_of(found[OTHER])) == (["a", "b"], ["x", "y"])
    with pytest.raises(ConfigError, match="not of nodes of one cluster"):
        run(read(machine, "/one", "/three"))


def test_a_torn_end_is_no_damage() -> None:
    """The directory of a node that lost power is backed up with all that it had acknowledged."""
    machine = node()
    image = machine.image(f"{DATA}/wal")
    image.append(image.names()[-1], [b"torn"])
    machine.cut_power(random.Random(1), PowerCut.PREFIX)
    assert run(back_up(machine, DATA)).instances == 3
