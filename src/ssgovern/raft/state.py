"""What all roles of a node share: who it is, what it promised, its log, and what it has to say.

Refuses to know which role it is in. Messages leave through two doors. Those of `say_now`
promise nothing and may leave at once, also while the disk is busy: heartbeats must not queue
behind a slow sync. Those of `say` leave only after all that was decided before them is on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from ssgovern import limits
from ssgovern.model import NodeId
from ssgovern.raft.log import RaftLog
from ssgovern.raft.messages import HardState, Message

Jitter: TypeAlias = Callable[[int], int]
"""Returns a number in [0, n): the `randrange` of whoever owns the randomness."""

STORY_LINES_MAX = 64


class SafetyViolationError(Exception):
    """Something was seen that the protocol rules out: two processes with one identity, or a
    disk that forgot. The node stops and keeps its bytes; going on could lose more."""


class Settings(NamedTuple):
    """Times are in ticks. An election time-out is at least ten times what a message and a sync
    take in bad times."""

    election_ticks: int = 10
    heartbeat_ticks: int = 1
    append_bytes_max: int = limits.FRAME_CHUNK_BYTES
    append_entries_max: int = limits.BATCH_ENTRIES_MAX
    appends_in_flight_max: int = 64
    snapshot_chunk_bytes: int = limits.SNAPSHOT_CHUNK_BYTES
    uncommitted_bytes_max: int = limits.UNCOMMITTED_BYTES_MAX
    caught_up_entries: int = 64
    """A learner that lacks no more than this may become a voter."""


class Refusal(StrEnum):
    """Why a request was not taken. Nothing has happened."""

    NOT_LEADER = "not the leader"
    TRANSFERRING = "leadership is being handed over"
    FULL = "too many bytes wait to be committed"
    CHANGE_IN_PROGRESS = "the last change of members is not committed"
    TERM_NOT_COMMITTED = "the leader has not committed an entry of its own term"
    NOT_CAUGHT_UP = "a new voter has to be a learner that caught up"
    NO_VOTERS = "no voters would be left"
    NOT_A_VOTER = "the node to hand over to is not a voter"
    NO_CHANGE = "the members are these already"


class Accepted(NamedTuple):
    """Where a proposal will be if it is ever committed: look at the term when it is applied."""

    index: int  # type: ignore[assignment]  # not tuple.index
    term: int


class State:
    """Owned by one `Raft`; its roles work on it."""

    __slots__ = (
        "_story",
        "after_sync",
        "at_once",
        "cluster",
        "hard",
        "hard_changed",
        "id",
        "log",
        "lost_reads",
        "now",
        "reads",
        "settings",
    )

    def __init__(
        self, cluster: bytes, node: NodeId, settings: Settings, hard: HardState, log: RaftLog
    ) -> None:
        self.cluster = cluster
        self.id = node
        self.settings = settings
        self.hard = hard
        self.hard_changed = False
        self.log = log
        self.now = 0
        """Ticks since this object was made."""
        self.at_once: list[Message] = []
        self.after_sync: list[Message] = []
        self.reads: deque[tuple[int, object]] = deque()
        """Confirmed reads: the index to be applied first, and the caller's context."""
        self.lost_reads: list[object] = []
        self._story: deque[str] = deque(maxlen=STORY_LINES_MAX)

    @property
    def term(self) -> int:
        return self.hard.term

    def promise(self, term: int, vote: NodeId | None) -> None:
        """Take up a term or a vote. Not a word about it leaves before it is on disk."""
        before = self.hard
        assert term >= before.term, f"term {term} after {before.term}"
        assert term > before.term or before.vote in (None, vote), "one vote per term"
        self.hard = HardState(term, vote)
        self.hard_changed = self.hard_changed or self.hard != before

    def say_now(self, message: Message) -> None:
        self.at_once.append(message)

    def say(self, message: Message) -> None:
        self.after_sync.append(message)

    def note(self, line: str) -> None:
        self._story.append(f"tick {self.now} term {self.hard.term}: {line}")

    def story(self) -> list[str]:
        return list(self._story)
