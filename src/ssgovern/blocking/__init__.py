"""The SDK without `async`: the same calls, each waiting for its result."""

from ssgovern.blocking.registration import Registration
from ssgovern.blocking.registry import Registry, connect
from ssgovern.blocking.subscription import PrefixSubscription, Subscription

__all__ = ["PrefixSubscription", "Registration", "Registry", "Subscription", "connect"]
