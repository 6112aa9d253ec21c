"""Raft among the candidates, for the metadata of the cluster. Pure.

`Raft` takes events (`tick`, `step`, `propose`, `change_members`, `read`, `transfer`, `compact`)
and decides; its owner does what it says, in the order that `Ready` states. No clock, no disk,
no network, no randomness: ticks and jitter are handed in.
"""

from ssgovern.raft.core import Raft, Ready, Role
from ssgovern.raft.log import RaftLog
from ssgovern.raft.membership import Config
from ssgovern.raft.messages import Entry, HardState, Message, Snapshot, describe
from ssgovern.raft.state import Accepted, Refusal, SafetyViolationError, Settings

__all__ = [
    "Accepted",
    "Config",
    "Entry",
    "HardState",
    "Message",
    "Raft",
    "RaftLog",
    "Ready",
    "Refusal",
    "Role",
    "SafetyViolationError",
    "Settings",
    "Snapshot",
    "describe",
]
