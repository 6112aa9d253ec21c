"""Requests of nodes and operators, several decided as one entry of the log. Pure.

Each request is decided in the state that those before it lead to, so that many primaries that ask
at once wait for one round of the log, not for many. What one is refused says nothing about the
others. All the records are appended together, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, assert_never

from ssgovern.controller.access import ChangeAccess, decide_access
from ssgovern.controller.nodes import (
    Registration,
    Stopping,
    decide_candidates,
    decide_leave,
    decide_registration,
    decide_stay,
    decide_stopping,
)
from ssgovern.controller.replicas import (
    InSyncRequest,
    Resigned,
    decide_in_sync,
    decide_resigned,
    decide_transfer,
    decide_unclean,
)
from ssgovern.controller.rules import Decision, Rules, named
from ssgovern.controller.settings import decide_settings
from ssgovern.controller.soft import SoftState
from ssgovern.controller.state import AccessChanged, ClusterState, Record, Settings
from ssgovern.errors import SsGovernError
from ssgovern.model import NodeId, ShardId

_SHARDS = "\0"
"""Stands where a sentence names its shard."""


@dataclass(frozen=True, slots=True)
class Leave:
    node: NodeId


@dataclass(frozen=True, slots=True)
class Stay:
    node: NodeId


@dataclass(frozen=True, slots=True)
class Transfer:
    shard: ShardId
    to: NodeId


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """None: what it was."""

    copies: int | None = None
    min_in_sync: int | None = None
    moves_max: int | None = None
    fence_after_ms: int | None = None
    lost_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Unclean:
    shard: ShardId
    node: NodeId


@dataclass(frozen=True, slots=True)
class Candidates:
    """The metadata log's members are these now."""

    nodes: tuple[NodeId, ...]


Request = (
    Registration
    | InSyncRequest
    | Resigned
    | Stopping
    | Leave
    | Stay
    | Transfer
    | ChangeSettings
    | Unclean
    | Candidates
    | ChangeAccess
)


class Decided(NamedTuple):
    """What to append for all, and what came of each."""

    records: tuple[Record, ...]
    outcomes: tuple[Decision | SsGovernError, ...]


def decide_requests(
    state: ClusterState,
    soft: SoftState,
    rules: Rules,
    asked: Sequence[Request],
    now_ms: float,
) -> Decided:
    """Decide requests one after the other; a refusal is an outcome, not raised."""
    draft = state.copy()
    records: list[Record] = []
    outcomes: list[Decision | SsGovernError] = []
    for request in asked:
        try:
            decision = _decide(draft, soft, rules, request, now_ms)
        except SsGovernError as error:
            outcomes.append(error)
            continue
        for record in decision.records:
            draft.replay(record)
        records.extend(decision.records)
        outcomes.append(decision)
    return Decided(tuple(records), tuple(outcomes))


def sentences(asked: Sequence[Request], outcomes: Sequence[Decision | SsGovernError]) -> list[str]:
    """Return what was decided, with shards that met the same fate in one sentence."""
    shards: dict[str, list[ShardId]] = {}
    for request, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, SsGovernError) or not outcome.records:
            continue
        if isinstance(request, InSyncRequest | Resigned):
            one = named([request.shard], "shard")
            shards.setdefault(outcome.sentence.replace(one, _SHARDS, 1), []).append(request.shard)
        else:
            shards.setdefault(outcome.sentence, [])
    return [
        said.replace(_SHARDS, named(found, "shard")) if found else said
        for said, found in shards.items()
    ]


def _decide(
    state: ClusterState, soft: SoftState, rules: Rules, request: Request, now_ms: float
) -> Decision:
    match request:
        case Registration():
            return decide_registration(state, soft, rules, request, now_ms)
        case InSyncRequest():
            return decide_in_sync(state, rules, request)
        case Resigned():
            return decide_resigned(state, soft, rules, request)
        case Stopping():
            return decide_stopping(state, soft, rules, request)
        case Leave():
            return decide_leave(state, request.node)
        case Stay():
            return decide_stay(state, request.node)
        case Transfer():
            return decide_transfer(state, request.shard, request.to)
        case ChangeSettings():
            return decide_settings(state, _changed(state, request))
        case Unclean():
            return decide_unclean(state, rules, request.shard, request.node)
        case Candidates():
            return decide_candidates(state, request.nodes)
        case ChangeAccess():
            change, sentence = decide_access(state.access, request.command, request.time_ms)
            if change is None:
                return Decision((), sentence)
            return Decision((Record(sentence, AccessChanged(change)),), sentence)
    assert_never(request)


def _changed(state: ClusterState, wanted: ChangeSettings) -> Settings:
    settings = state.settings
    if wanted.copies is not None:
        settings = replace(settings, copies=wanted.copies)
    if wanted.min_in_sync is not None:
        settings = replace(settings, min_in_sync=wanted.min_in_sync)
    if wanted.moves_max is not None:
        settings = replace(settings, moves_max=wanted.moves_max)
    if wanted.fence_after_ms is not None:
        settings = replace(settings, fence_after_ms=wanted.fence_after_ms)
    if wanted.lost_after_ms is not None:
        settings = replace(settings, lost_after_ms=wanted.lost_after_ms)
    return settings
