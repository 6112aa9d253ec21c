"""ss-govern: a service registry that is both sharded and durable. This package is its client.

    async with ssgovern.connect("127.0.0.1:7420", namespace="prod") as registry:
        await registry.register("orders", port=8080)
        async with registry.subscribe("payments") as payments:
            instance = payments.choose()

`ssgovern.blocking` has the same without `async`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ssgovern.version import __version__

if TYPE_CHECKING:
    from ssgovern import blocking
    from ssgovern.client.balancer import Strategy
    from ssgovern.client.event_feed import EventFeed
    from ssgovern.client.observed import Event, EventKind, EventPage, SessionPage, SessionStatus
    from ssgovern.client.registration import Registration
    from ssgovern.client.registry import Registry, connect
    from ssgovern.client.subscribers import Delivery, Release, ServiceSubscribers, Subscriber
    from ssgovern.client.subscription import PrefixSubscription, Subscription
    from ssgovern.client.tls import Tls
    from ssgovern.client.values import (
        Change,
        ClusterNode,
        ClusterStatus,
        ConnectionState,
        NodeStatus,
        ServiceSummary,
        ShardRow,
    )
    from ssgovern.errors import (
        ClosedError,
        DeadlineExceededError,
        ErrorCode,
        InvalidArgumentError,
        LimitExceededError,
        NotFoundError,
        NotOwnerError,
        OverloadedError,
        PermissionDeniedError,
        Retry,
        RevisionConflictError,
        SsGovernError,
        UnauthenticatedError,
        UnavailableError,
    )
    from ssgovern.model import Instance, ServiceKey, Status

__all__ = [
    "Change",
    "ClosedError",
    "ClusterNode",
    "ClusterStatus",
    "ConnectionState",
    "DeadlineExceededError",
    "Delivery",
    "ErrorCode",
    "Event",
    "EventFeed",
    "EventKind",
    "EventPage",
    "Instance",
    "InvalidArgumentError",
    "LimitExceededError",
    "NodeStatus",
    "NotFoundError",
    "NotOwnerError",
    "OverloadedError",
    "PermissionDeniedError",
    "PrefixSubscription",
    "Registration",
    "Registry",
    "Release",
    "Retry",
    "RevisionConflictError",
    "ServiceKey",
    "ServiceSubscribers",
    "ServiceSummary",
    "SessionPage",
    "SessionStatus",
    "ShardRow",
    "SsGovernError",
    "Status",
    "Strategy",
    "Subscriber",
    "Subscription",
    "Tls",
    "UnauthenticatedError",
    "UnavailableError",
    "__version__",
    "blocking",
    "connect",
]

_HOMES = {
    "Change": "ssgovern.client.values",
    "ClosedError": "ssgovern.errors",
    "ClusterNode": "ssgovern.client.values",
    "ClusterStatus": "ssgovern.client.values",
    "ConnectionState": "ssgovern.client.values",
    "DeadlineExceededError": "ssgovern.errors",
    "Delivery": "ssgovern.client.subscribers",
    "ErrorCode": "ssgovern.errors",
    "Event": "ssgovern.client.observed",
    "EventFeed": "ssgovern.client.event_feed",
    "EventKind": "ssgovern.client.observed",
    "EventPage": "ssgovern.client.observed",
    "Instance": "ssgovern.model",
    "InvalidArgumentError": "ssgovern.errors",
    "LimitExceededError": "ssgovern.errors",
    "NodeStatus": "ssgovern.client.values",
    "NotFoundError": "ssgovern.errors",
    "NotOwnerError": "ssgovern.errors",
    "OverloadedError": "ssgovern.errors",
    "PermissionDeniedError": "ssgovern.errors",
    "PrefixSubscription": "ssgovern.client.subscription",
    "Registration": "ssgovern.client.registration",
    "Registry": "ssgovern.client.registry",
    "Release": "ssgovern.client.subscribers",
    "Retry": "ssgovern.errors",
    "RevisionConflictError": "ssgovern.errors",
    "ServiceKey": "ssgovern.model",
    "ServiceSubscribers": "ssgovern.client.subscribers",
    "ServiceSummary": "ssgovern.client.values",
    "SessionPage": "ssgovern.client.observed",
    "SessionStatus": "ssgovern.client.observed",
    "ShardRow": "ssgovern.client.values",
    "SsGovernError": "ssgovern.errors",
    "Status": "ssgovern.model",
    "Strategy": "ssgovern.client.balancer",
    "Subscriber": "ssgovern.client.subscribers",
    "Subscription": "ssgovern.client.subscription",
    "Tls": "ssgovern.client.tls",
    "UnauthenticatedError": "ssgovern.errors",
    "UnavailableError": "ssgovern.errors",
    "connect": "ssgovern.client.registry",
}
"""Where each name lives. Imported when it is first asked for: a program that only wants the
version, or the help of a command, need not wait for the rest."""


def __getattr__(name: str) -> object:
    if name == "blocking":
        return import_module("ssgovern.blocking")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
