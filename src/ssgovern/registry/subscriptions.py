"""Who wants to be told of what: subscriptions by exact key and by prefix pattern.

Pure. A subscriber is any object; it is in an audience once, however many of its subscriptions
cover the service. A pattern may be asked for in some shards only, because its other services
are followed on other nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ssgovern.model import SHARDS, Pattern, ServiceKey, ShardId, shard_of


@dataclass(frozen=True, slots=True)
class MaskedPattern:
    """The services of a pattern that are in some shards; bit i of `shards` stands for shard i."""

    pattern: Pattern
    shards: int

    def matches(self, key: ServiceKey) -> bool:
        """Tell whether it covers a service."""
        return self.pattern.matches(key) and bool(self.shards >> shard_of(*key) & 1)

    def __str__(self) -> str:
        return f"{self.pattern} in {self.shards.bit_count()} shards"


S = TypeVar("S")
V = TypeVar("V")
Target = ServiceKey | Pattern | MaskedPattern
_Patterns = dict[tuple[str, str], dict[str, dict[S, V]]]
"""By namespace and group, then by prefix: who has such a pattern, and what of it."""


class SubscriptionTable(Generic[S]):
    """All subscriptions of a node, by what they are for."""

    def __init__(self) -> None:
        # The inner numbers count a subscriber's subscriptions to the same target.
        self._exact: dict[ServiceKey, dict[S, int]] = {}
        self._exact_of_shard: list[dict[ServiceKey, None]] = [{} for _ in range(SHARDS)]
        self._patterns: _Patterns[S, int] = {}
        self._masked: _Patterns[S, list[int]] = {}
        """The inner lists: the masks, and last of all everything that is in one of them."""
        self.count = 0

    def __repr__(self) -> str:
        return f"<SubscriptionTable {self.count}>"

    def add(self, subscriber: S, target: Target) -> None:
        """Note one more subscription."""
        if isinstance(target, ServiceKey):
            audience = self._exact.get(target)
            if audience is None:
                audience = self._exact[target] = {}
                self._exact_of_shard[shard_of(*target)][target] = None
            audience[subscriber] = audience.get(subscriber, 0) + 1
        elif isinstance(target, Pattern):
            audience = _with_prefix(self._patterns, target)
            audience[subscriber] = audience.get(subscriber, 0) + 1
        else:
            masks = _with_prefix(self._masked, target.pattern).setdefault(subscriber, [0])
            masks.insert(0, target.shards)
            masks[-1] |= target.shards
        self.count += 1

    def remove(self, subscriber: S, target: Target) -> None:
        """Drop one subscription that was added."""
        if isinstance(target, ServiceKey):
            audience = self._exact[target]
            if _drop(audience, subscriber) and not audience:
                del self._exact[target]
                del self._exact_of_shard[shard_of(*target)][target]
        elif isinstance(target, Pattern):
            if _drop(_with_prefix(self._patterns, target), subscriber):
                _forget_empty(self._patterns, target)
        else:
            audience_of_masks = _with_prefix(self._masked, target.pattern)
            masks = audience_of_masks[subscriber]
            masks.remove(target.shards)
            masks[-1] = 0
            for mask in masks[:-1]:
                masks[-1] |= mask
            if not masks[-1]:
                del audience_of_masks[subscriber]
                _forget_empty(self._masked, target.pattern)
        self.count -= 1

    def has_audience(self, key: ServiceKey) -> bool:
        """Tell whether anybody follows a service."""
        return (
            key in self._exact
            or bool(_matching(self._patterns, key))
            or (bool(self._masked) and bool(self._in_masks(key)))
        )

    def follows(self, subscriber: S, key: ServiceKey) -> bool:
        """Tell whether a subscriber follows a service, by whatever subscription."""
        exact = self._exact.get(key)
        if exact is not None and subscriber in exact:
            return True
        if any(subscriber in audience for audience in _matching(self._patterns, key)):
            return True
        return bool(self._masked) and subscriber in self._in_masks(key)

    def audience(self, key: ServiceKey) -> list[S]:
        """Return who follows a service, each once."""
        exact = self._exact.get(key)
        matching = _matching(self._patterns, key)
        masked = self._in_masks(key) if self._masked else None
        if not matching and not masked:
            return [] if exact is None else list(exact)
        everyone: dict[S, None] = {} if exact is None else dict.fromkeys(exact)
        for audience in matching:
            everyone.update(dict.fromkeys(audience))
        if masked:
            everyone.update(masked)
        return list(everyone)

    def exact_in(self, shard: ShardId) -> list[ServiceKey]:
        """Return the services of a shard that somebody follows by their names."""
        return list(self._exact_of_shard[shard])

    def _in_masks(self, key: ServiceKey) -> dict[S, None]:
        bit = 1 << shard_of(*key)
        return {
            subscriber: None
            for audience in _matching(self._masked, key)
            for subscriber, masks in audience.items()
            if masks[-1] & bit
        }

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator."""
        audiences = list(self._exact.values())
        for prefixes in self._patterns.values():
            assert prefixes, "a pattern's namespace is empty and still here"
            audiences += prefixes.values()
        assert all(audiences), "an empty audience is still here"
        count = sum(sum(audience.values()) for audience in audiences)
        for masked in self._masked.values():
            assert masked, "a masked pattern's namespace is empty and still here"
            for audience in masked.values():
                assert audience, "an empty audience of masks is still here"
                assert all(masks[-1] for masks in audience.values())
                count += sum(len(masks) - 1 for masks in audience.values())
        assert self.count == count
        for shard, keys in enumerate(self._exact_of_shard):
            assert all(key in self._exact and shard_of(*key) == shard for key in keys)
        assert sum(map(len, self._exact_of_shard)) == len(self._exact)


def _with_prefix(patterns: _Patterns[S, V], pattern: Pattern) -> dict[S, V]:
    prefixes = patterns.setdefault((pattern.namespace, pattern.group), {})
    return prefixes.setdefault(pattern.prefix, {})


def _forget_empty(patterns: _Patterns[S, V], pattern: Pattern) -> None:
    prefixes = patterns[pattern.namespace, pattern.group]
    if not prefixes[pattern.prefix]:
        del prefixes[pattern.prefix]
        if not prefixes:
            del patterns[pattern.namespace, pattern.group]


def _matching(patterns: Mapping[tuple[str, str], dict[str, V]], key: ServiceKey) -> list[V]:
    prefixes = patterns.get((key.namespace, key.group))
    if prefixes is None:
        return []
    name = key.service
    if len(prefixes) <= len(name):
        return [audience for prefix, audience in prefixes.items() if name.startswith(prefix)]
    # Many patterns: a name has fewer beginnings than there are patterns to try.
    beginnings = (name[:end] for end in range(len(name) + 1))
    return [prefixes[prefix] for prefix in beginnings if prefix in prefixes]


def _drop(audience: dict[S, int], subscriber: S) -> bool:
    if audience[subscriber] > 1:
        audience[subscriber] -= 1
        return False
    del audience[subscriber]
    return True
