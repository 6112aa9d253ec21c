"""ss-govern: a service registry that is both sharded and durable. This package is its client.

    async with ssgovern.connect("127.0.0.1:7420", namespace="prod") as registry:
        await registry.register("orders", port=8080)
        async with registry.subscribe("payments") as payments:
            instance = payments.choose()

`ssgovern.blocking` has the same without `async`.
"""

from ssgovern import blocking
from ssgovern.client.balancer import Strategy
from ssgovern.client.registration import Registration
from ssgovern.client.registry import Registry, connect
from ssgovern.client.subscription import PrefixSubscription, Subscription
from ssgovern.client.values import Change, ConnectionState, NodeStatus, ServiceSummary
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    NotOwnerError,
    OverloadedError,
    Retry,
    RevisionConflictError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import Instance, ServiceKey, Status
from ssgovern.version import __version__

__all__ = [
    "Change",
    "ClosedError",
    "ConnectionState",
    "DeadlineExceededError",
    "ErrorCode",
    "Instance",
    "InvalidArgumentError",
    "LimitExceededError",
    "NodeStatus",
    "NotFoundError",
    "NotOwnerError",
    "OverloadedError",
    "PrefixSubscription",
    "Registration",
    "Registry",
    "Retry",
    "RevisionConflictError",
    "ServiceKey",
    "ServiceSummary",
    "SsGovernError",
    "Status",
    "Strategy",
    "Subscription",
    "UnavailableError",
    "__version__",
    "blocking",
    "connect",
]
