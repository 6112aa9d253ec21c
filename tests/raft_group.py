"""A group of bare Raft cores by hand: messages and syncs go when a test lets them go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssgovern.model import NodeId
from ssgovern.raft import (
    Config,
    Entry,
    HardState,
    Message,
    Raft,
    Ready,
    Settings,
    Snapshot,
    describe,
)
from ssgovern.raft.messages import describe_entry

CLUSTER = b"test"


class GroupDisk:
    def __init__(self, snapshot: Snapshot) -> None:
        self.hard = HardState()
        self.snapshot = snapshot
        self.entries: list[Entry] = []

    def write(self, batch: Ready) -> None:
        if batch.snapshot is not None:
            self.snapshot, self.entries = batch.snapshot, []
        if batch.hard_state is not None:
            self.hard = batch.hard_state
        if batch.entries:
            first = batch.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first]
            self.entries += batch.entries


class Group:
    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.settings = Settings(snapshot_chunk_bytes=8)
        self.cores: dict[NodeId, Raft] = {}
        self.disks: dict[NodeId, GroupDisk] = {}
        self.net: list[Message] = []
        self.cuts: list[tuple[NodeId, NodeId]] = []
        self.applied: dict[NodeId, list[Entry]] = {}
        self.reads: dict[NodeId, list[object]] = {}
        self.lost_reads: dict[NodeId, list[object]] = {}
        self._say = say or (lambda line: None)

    def start(self, voters: Sequence[NodeId], outside: Sequence[NodeId] = ()) -> None:
        for node in (*voters, *outside):
            config = Config(tuple(voters)) if node in voters else Config()
            self.disks[node] = GroupDisk(Snapshot(config=config))
            self.boot(node)

    def boot(self, node: NodeId) -> Raft:
        disk = self.disks[node]
        self.applied[node] = []
        self.reads.setdefault(node, [])
        self.lost_reads.setdefault(node, [])
        self.cores[node] = core = Raft(
            CLUSTER,
            node,
            lambda stop: 0,
            hard_state=disk.hard,
            snapshot=disk.snapshot,
            entries=disk.entries,
            settings=self.settings,
        )
        return core

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if (message.source, message.target) not in self.cuts:
                self.net.append(message)

    def sync(self, node: NodeId) -> bool:
        """Write what waits; send, apply and serve what it allows. Return whether it was any."""
        core = self.cores[node]
        self.send(core.urgent())
        batch = core.ready()
        if batch is None:
            return False
        self.disks[node].write(batch)
        core.persisted(batch)
        self.send(batch.messages)
        if batch.snapshot is not None:
            self._say(f"{node} restores {batch.snapshot.term}/{batch.snapshot.index}")
        for entry in batch.committed:
            self.applied[node].append(entry)
            self._say(f"{node} applies {describe_entry(entry)}")
        for index, context in batch.reads:
            self.reads[node].append(context)
            self._say(f"{node} serves {context} at {index}")
        for context in batch.lost_reads:
            self.lost_reads[node].append(context)
            self._say(f"{node} cannot serve {context}")
        return True

    def deliver(self, node: NodeId, count: int = 1000) -> None:
        for core in self.cores.values():
            self.send(core.urgent())
        mine = [message for message in self.net if message.target == node][:count]
        for message in mine:
            self.net.remove(message)
            self._say(describe(message))
            self.cores[node].step(message)

    def lose(self, node: NodeId) -> None:
        for core in self.cores.values():
            self.send(core.urgent())
        self.net = [message for message in self.net if message.target != node]

    def settle(self) -> None:
        for _ in range(200):
            busy = [node for node in self.cores if self.sync(node)]
            if not self.net and not busy:
                return
            for node in self.cores:
                self.deliver(node)
        raise AssertionError("it never settles")

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for core in self.cores.values():
                core.tick()
            self.settle()

    def cut(self, one: NodeId, other: NodeId) -> None:
        self.cuts += [(one, other), (other, one)]
        self.net = [m for m in self.net if (m.source, m.target) not in self.cuts]

    def isolate(self, node: NodeId) -> None:
        for other in self.cores:
            if other != node:
                self.cut(node, other)

    def heal(self) -> None:
        self.cuts = []

    def crash(self, node: NodeId) -> Raft:
        self.net = [message for message in self.net if message.target != node]
        return self.boot(node)

    def compact(self, node: NodeId, keep: int = 0) -> Snapshot:
        core, disk = self.cores[node], self.disks[node]
        snapshot = core.compact(core.log.applied, b"state at %d" % core.log.applied, keep=keep)
        disk.snapshot = snapshot
        disk.entries = [entry for entry in disk.entries if entry.index > snapshot.index]
        return snapshot

    def elect(self, node: NodeId) -> Raft:
        core = self.cores[node]
        core.campaign()
        self.settle()
        assert core.leader is not None, f"not elected: {core!r}"
        return core

    def validate(self) -> None:
        for core in self.cores.values():
            core.validate()
