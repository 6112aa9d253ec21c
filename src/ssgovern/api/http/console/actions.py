"""What an operator does from the console: each a request through the node's gateway.

Knows no HTTP. Every action says what it did in one sentence, and may be done twice without doing
more.
"""

from __future__ import annotations

from ssgovern import limits
from ssgovern.api.http.console.words import Language, say
from ssgovern.api.http.gateway import Gateway
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import ServiceKey
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_TIMEOUT_S = limits.CONSOLE_ACTION_MS / 1000.0


async def on_instance(
    gateway: Gateway, language: Language, key: ServiceKey, instance_id: str, action: str, value: str
) -> str:
    """Act on an instance; return what was done."""
    registry = await gateway.registry(key.namespace)
    match action:
        case "weight":
            try:
                weight = float(value)
            except ValueError:
                raise InvalidArgumentError(
                    f"weight {value[:50]!r} is no number", field="weight"
                ) from None
            await registry.update(
                key.service,
                instance_id,
                weight=weight,
                group=key.group,
                any_owner=True,
                timeout=_TIMEOUT_S,
            )
            return say(language, "did_weight", id=instance_id, weight=f"{weight:g}")
        case "enable" | "disable":
            await registry.update(
                key.service,
                instance_id,
                enabled=action == "enable",
                group=key.group,
                any_owner=True,
                timeout=_TIMEOUT_S,
            )
            return say(language, f"did_{action}", id=instance_id)
        case "drain":
            done = await registry.drain(
                key.service,
                instance_id,
                group=key.group,
                any_owner=True,
                deregister=True,
                timeout=limits.CONSOLE_DRAIN_MS / 1000.0,
            )
            if done.removed:
                return say(language, "did_drain", id=instance_id)
            lacking = done.drained.lacking_total if done.drained is not None else 0
            return say(language, "did_drain_not_all", id=instance_id, n=lacking)
        case _:
            raise InvalidArgumentError(f"{action[:50]!r} is no action", field="action")


async def on_node(gateway: Gateway, node_id: int, action: str) -> str:
    """Act on a node; return what the controller decided."""
    registry = await gateway.registry()
    match action:
        case "leave":
            return await registry.cluster_leave(node_id)
        case "stay":
            return await registry.cluster_stay(node_id)
        case "controller":
            return await registry.cluster_transfer_controller(node_id)
        case _:
            raise InvalidArgumentError(f"{action[:50]!r} is no action", field="action")


async def transfer(gateway: Gateway, shard: int, to: int) -> str:
    """Make a node the primary of a shard; return what was decided."""
    return await (await gateway.registry()).cluster_transfer(shard, to)


async def revoke(gateway: Gateway, token_id: str) -> str:
    """Revoke a token; return what was decided."""
    answer = await gateway.call(
        MessageType.ACCESS,
        native_pb2.AccessRequest(revoke_token=token_id),
        native_pb2.AccessResponse,
        repeatable=True,
        timeout_ms=limits.CONSOLE_ACTION_MS,
    )
    return answer.sentence
