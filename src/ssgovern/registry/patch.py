"""Changing single fields of a registered instance. Pure."""

from __future__ import annotations

from ssgovern import limits
from ssgovern.errors import LimitExceededError, SsGovernError
from ssgovern.wire.pb import model_pb2, native_pb2


def patch_instance(
    instance: model_pb2.Instance, change: native_pb2.InstanceChange
) -> SsGovernError | None:
    """Change `instance` in place, or return why it cannot be.

    The values themselves were checked when the request came in; what is checked here depends
    on what the instance already has.
    """
    metadata = instance.metadata
    if change.metadata_clear:
        metadata.clear()
    for key in change.metadata_remove:
        metadata.pop(key, None)
    metadata.update(change.metadata_set)
    if len(metadata) > limits.METADATA_PAIRS_MAX:
        return LimitExceededError(
            f"{len(metadata)} metadata pairs: at most {limits.METADATA_PAIRS_MAX} are allowed",
            field="metadata",
            limit=limits.METADATA_PAIRS_MAX,
        )
    if change.HasField("weight"):
        instance.weight = change.weight
    if change.HasField("status"):
        instance.status = change.status
    if change.HasField("out_of_service"):
        instance.out_of_service = change.out_of_service
    # Only metadata makes it longer; without it, what the node added to the largest instance
    # must not keep an operator from changing it.
    if change.metadata_set and instance.ByteSize() > limits.INSTANCE_BYTES_MAX:
        return LimitExceededError(
            f"the instance would be longer than {limits.INSTANCE_BYTES_MAX} bytes",
            field="instance",
            limit=limits.INSTANCE_BYTES_MAX,
        )
    return None
