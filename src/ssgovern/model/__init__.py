"""Frozen values that everything else speaks in: names, instances, slots, positions."""

from ssgovern.model.instance import (
    Instance,
    Status,
    check_instance,
    check_metadata,
    check_weight,
    instance_id,
)
from ssgovern.model.names import (
    DEFAULT_GROUP,
    DEFAULT_NAMESPACE,
    Pattern,
    ServiceKey,
    check_key,
    check_name,
    check_prefix,
    check_text,
    valid_key,
)
from ssgovern.model.outcome import DONE, Outcome
from ssgovern.model.position import ORIGIN, LogPosition
from ssgovern.model.session import SessionId, session_id_of, session_secret_matches
from ssgovern.model.shard_map import NodeId, ShardAssignment, ShardMap
from ssgovern.model.slots import SHARDS, SLOTS, ShardId, Slot, shard_of, shard_of_slot, slot_of

__all__ = [
    "DEFAULT_GROUP",
    "DEFAULT_NAMESPACE",
    "DONE",
    "ORIGIN",
    "SHARDS",
    "SLOTS",
    "Instance",
    "LogPosition",
    "NodeId",
    "Outcome",
    "Pattern",
    "ServiceKey",
    "SessionId",
    "ShardAssignment",
    "ShardId",
    "ShardMap",
    "Slot",
    "Status",
    "check_instance",
    "check_key",
    "check_metadata",
    "check_name",
    "check_prefix",
    "check_text",
    "check_weight",
    "instance_id",
    "session_id_of",
    "session_secret_matches",
    "shard_of",
    "shard_of_slot",
    "slot_of",
    "valid_key",
]
