"""What nodes say to each other, and what they keep on disk.

Values only. Every message names the cluster, its sender, its addressee and a term; what is
meant for another cluster or another node is dropped before it is looked at.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from ssgovern.model import NodeId
from ssgovern.raft.membership import Config

Payload: TypeAlias = bytes | Config | None
"""A command, a change of members, or nothing (what a new leader begins its term with)."""


class Entry(NamedTuple):
    """One entry of the log. Equal (index, term) means an equal entry and an equal prefix."""

    index: int  # type: ignore[assignment]  # not tuple.index
    term: int
    payload: Payload = None

    @property
    def size_bytes(self) -> int:
        return len(self.payload) if isinstance(self.payload, bytes) else 0


class HardState(NamedTuple):
    """What a node has promised: on disk before anybody hears of it."""

    term: int = 0
    vote: NodeId | None = None


class Snapshot(NamedTuple):
    """The state at `index`, in place of all entries up to it. Index 0: how a node begins."""

    index: int = 0  # type: ignore[assignment]  # not tuple.index
    term: int = 0
    config: Config = Config()
    payload: bytes = b""


class PreVote(NamedTuple):
    """Would you vote for me in `term`? Changes nothing, so it disturbs nobody (thesis 9.6)."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    last_index: int
    last_term: int


class PreVoteAnswer(NamedTuple):
    """`term` is the one asked for if granted, else the term of who refuses."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    granted: bool


class Vote(NamedTuple):
    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    last_index: int
    last_term: int
    transfer: bool
    """The leader itself wants this election: hearing from it is no reason to refuse."""


class VoteAnswer(NamedTuple):
    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    granted: bool


class Append(NamedTuple):
    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int


class AppendAnswer(NamedTuple):
    """`ok`: my disk equals your log up to `index`. Else: I do not have `index`; the hint is my
    last position that may be in your log."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    ok: bool
    index: int  # type: ignore[assignment]  # not tuple.index
    hint_index: int
    hint_term: int


class Heartbeat(NamedTuple):
    """`round` and `tick` are the leader's own and come back as they are: what was begun after
    them, and when, only the leader needs to know."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    commit: int
    round: int
    tick: int


class HeartbeatAnswer(NamedTuple):
    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    round: int
    tick: int


class InstallSnapshot(NamedTuple):
    """A piece of the snapshot at (index, snapshot_term), from `offset` bytes on."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    index: int  # type: ignore[assignment]  # not tuple.index
    snapshot_term: int
    config: Config
    offset: int
    chunk: bytes
    done: bool


class SnapshotAnswer(NamedTuple):
    """Go on from `offset` bytes. (When all of it is on disk an `AppendAnswer` says so.)"""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int
    index: int  # type: ignore[assignment]  # not tuple.index
    offset: int


class NewerTerm(NamedTuple):
    """To a leader of the past, which would otherwise not hear that its time is over."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int


class TimeoutNow(NamedTuple):
    """Stand for election at once (thesis 3.10)."""

    cluster: bytes
    source: NodeId
    target: NodeId
    term: int


Message: TypeAlias = (
    PreVote
    | PreVoteAnswer
    | Vote
    | VoteAnswer
    | Append
    | AppendAnswer
    | Heartbeat
    | HeartbeatAnswer
    | InstallSnapshot
    | SnapshotAnswer
    | NewerTerm
    | TimeoutNow
)


def describe_entry(entry: Entry) -> str:
    payload = entry.payload
    if payload is None:
        text = "no-op"
    elif isinstance(payload, Config):
        text = repr(payload)
    elif len(payload) <= 16:
        text = payload.decode("ascii", "backslashreplace")
    else:
        text = f"{len(payload)} bytes"
    return f"{entry.term}/{entry.index} {text}"


def describe(message: Message) -> str:
    """Return one line that a person can read; positions are written term/index."""
    head = f"{message.source}->{message.target} {type(message).__name__} term={message.term}"
    match message:
        case PreVote() | Vote():
            tail = f"last={message.last_term}/{message.last_index}"
            if isinstance(message, Vote) and message.transfer:
                tail += " transfer"
        case PreVoteAnswer() | VoteAnswer():
            tail = "granted" if message.granted else "refused"
        case Append():
            entries = ", ".join(map(describe_entry, message.entries))
            tail = f"prev={message.prev_term}/{message.prev_index} commit={message.commit}"
            tail += f" [{entries}]"
        case AppendAnswer(ok=True):
            tail = f"ok index={message.index}"
        case AppendAnswer():
            tail = f"refused index={message.index} hint={message.hint_term}/{message.hint_index}"
        case Heartbeat():
            tail = f"commit={message.commit} round={message.round}"
        case HeartbeatAnswer():
            tail = f"round={message.round}"
        case InstallSnapshot():
            tail = f"at={message.snapshot_term}/{message.index} offset={message.offset}"
            tail += f" {len(message.chunk)} bytes{' done' if message.done else ''}"
        case SnapshotAnswer():
            tail = f"index={message.index} offset={message.offset}"
        case NewerTerm() | TimeoutNow():
            tail = ""
    return f"{head} {tail}".rstrip()
