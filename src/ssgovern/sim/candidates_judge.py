"""What candidates did and saw, and what must hold of it.

C1 one leader per term, and none before a moment at which another was confirmed; C2 all apply the
same entries at the same indexes, without gaps, and snapshots hold the state they claim; C3 terms
never fall in one life; C4 what an append returned stays where it said, and what it refused is
nowhere; C5 at most one append succeeds behind one index; C6 a confirmed read is not older than
what had been appended before it was asked for; C7 a new life knows what an earlier one promised:
its vote, its term, the entries it acknowledged. L1 after all has healed somebody leads within a
bound, and all agree again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from ssgovern.controller.log import Entry
from ssgovern.model import NodeId
from ssgovern.node.raft_storage import Recovered
from ssgovern.raft import HardState, Message
from ssgovern.raft.messages import AppendAnswer, Vote, VoteAnswer

_STATE: Final = struct.Struct(">QI")
_PADDING: Final = 700
"""A state is longer than a piece of it that travels."""


def encode_state(index: int, chain: int) -> bytes:
    return _STATE.pack(index, chain) + bytes(_PADDING)


def _decode_state(body: bytes) -> tuple[int, int]:
    index, chain = _STATE.unpack_from(body)
    return index, chain


class Judge:
    """Hears everything; `violations` is what is wrong."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.truth: list[bytes] = []
        """By index from 1 on: what was applied there by whoever was first."""
        self._chains: list[int] = [0]
        self._places: dict[bytes, int] = {}
        self._leaders: dict[int, tuple[NodeId, float]] = {}
        self._acknowledged: dict[bytes, int] = {}
        self._succeeded: dict[int, bytes] = {}
        self._refused: dict[bytes, None] = {}
        self._votes: dict[NodeId, tuple[int, NodeId]] = {}
        """The last vote that a candidate gave and said so, with its term."""
        self._held: dict[NodeId, tuple[int, int]] = {}
        """Up to where it said to hold the log, and in which term."""
        self.highest_acknowledged = 0
        self.reads = 0
        self.restored = 0

    @property
    def acknowledged(self) -> int:
        return len(self._acknowledged)

    @property
    def refused(self) -> int:
        return len(self._refused)

    @property
    def elections(self) -> int:
        return len(self._leaders)

    def expect(self, holds: bool, text: str) -> None:
        if not holds:
            self.violations.append(text)

    # --- of one candidate ------------------------------------------------------------------

    def on_applied(self, life: AppliedState, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.expect(
                entry.index == life.index + 1,
                f"C2: node {life.node} applies {entry.index} after {life.index}",
            )
            if entry.index == len(self.truth) + 1:
                self.truth.append(entry.body)
                self._chains.append(_chain(self._chains[-1], entry))
                if entry.body:
                    self.expect(
                        entry.body not in self._places,
                        f"C2: {entry.body!r} at {entry.index} and before",
                    )
                    self._places[entry.body] = entry.index
                    self.expect(
                        entry.body not in self._refused,
                        f"C4: {entry.body!r} was refused, and is at {entry.index}",
                    )
            life.index, life.chain = entry.index, _chain(life.chain, entry)
            same = entry.index <= len(self.truth) and self._chains[entry.index] == life.chain
            self.expect(same, f"C2: node {life.node} has another history at {entry.index}")

    def on_restored(self, life: AppliedState, snapshot: Entry) -> None:
        index, chain = _decode_state(snapshot.body)
        self.restored += 1
        self.expect(index == snapshot.index, f"C2: a snapshot of {index} at {snapshot.index}")
        self.expect(index > life.index or life.index == 0, f"C2: node {life.node} goes back")
        same = index <= len(self.truth) and chain == self._chains[index]
        self.expect(same, f"C2: node {life.node} takes up another history at {index}")
        life.index, life.chain = index, chain

    def on_elected(self, node: NodeId, term: int, now: float) -> None:
        leader, _ = self._leaders.setdefault(term, (node, now))
        self.expect(leader == node, f"C1: nodes {leader} and {node} lead in term {term}")

    def on_confirmed(self, node: NodeId, term: int, confirmed_at: float) -> None:
        for later, (other, when) in self._leaders.items():
            self.expect(
                later <= term or when >= confirmed_at,
                f"C1: node {node} was confirmed in term {term} at {confirmed_at:.3f}, "
                f"and {other} had been elected in {later} at {when:.3f}",
            )

    def on_said(self, message: Message) -> None:
        node = message.source
        match message:
            case Vote():
                self._votes[node] = (message.term, node)
            case VoteAnswer(granted=True):
                self._votes[node] = (message.term, message.target)
            case AppendAnswer(ok=True):
                self._held[node] = max(self._held.get(node, (0, 0)), (message.term, message.index))
            case _:
                pass

    def on_recovered(self, node: NodeId, recovered: Recovered) -> None:
        hard, entries = recovered.hard_state, recovered.entries
        term, vote = self._votes.get(node, (0, None))
        keeps = hard.term > term or hard == HardState(term, vote)
        self.expect(keeps, f"C7: node {node} voted for {vote} in {term} and knows {hard}")
        term, index = self._held.get(node, (0, 0))
        last_index = entries[-1].index if entries else recovered.snapshot.index
        keeps = hard.term > term or (hard.term == term and last_index >= index)
        self.expect(keeps, f"C7: node {node} held {index} in {term}, and {last_index}: {hard}")

    # --- of appends and reads --------------------------------------------------------------

    def on_acknowledged(self, body: bytes, index: int, after: int) -> None:
        self.expect(index > after, f"C4: {body!r} behind {after} is at {index}")
        other = self._succeeded.setdefault(after, body)
        self.expect(other == body, f"C5: {other!r} and {body!r} succeeded behind {after}")
        self._acknowledged[body] = index
        self.highest_acknowledged = max(self.highest_acknowledged, index)
        self.expect(
            self._places.get(body) == index,
            f"C4: {body!r} is said to be at {index}, and is at {self._places.get(body)}",
        )
        between = [index_ for index_ in range(after + 1, index) if self.truth[index_ - 1]]
        self.expect(not between, f"C5: records between {after} and {index}: {between}")

    def on_refused(self, body: bytes) -> None:
        self._refused[body] = None
        place = self._places.get(body)
        self.expect(place is None, f"C4: {body!r} is at {place}, and is refused")

    def on_read(self, index: int, asked_at: int, applied: int) -> None:
        self.reads += 1
        self.expect(asked_at <= index <= applied, f"C6: {asked_at} <= {index} <= {applied}")


class AppliedState:
    """What one life of a candidate has applied."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.index = 0
        self.chain = 0

    def encode(self) -> bytes:
        return encode_state(self.index, self.chain)


def _chain(before: int, entry: Entry) -> int:
    return zlib.crc32(entry.body, zlib.crc32(b"%d" % entry.index, before))
