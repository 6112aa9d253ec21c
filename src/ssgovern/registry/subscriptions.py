"""Who wants to be told of what: subscriptions by exact key and by prefix pattern.

Pure. A subscriber is any object; it is in an audience once, however many of its subscriptions
cover the service.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ssgovern.model import Pattern, ServiceKey

S = TypeVar("S")
Target = ServiceKey | Pattern


class SubscriptionTable(Generic[S]):
    """All subscriptions of a node, by what they are for."""

    def __init__(self) -> None:
        # The inner numbers count a subscriber's subscriptions to the same target.
        self._exact: dict[ServiceKey, dict[S, int]] = {}
        self._patterns: dict[tuple[str, str], dict[str, dict[S, int]]] = {}
        self.count = 0

    def __repr__(self) -> str:
        return f"<SubscriptionTable {self.count}>"

    def add(self, subscriber: S, target: Target) -> None:
        """Note one more subscription."""
        if isinstance(target, ServiceKey):
            audience = self._exact.setdefault(target, {})
        else:
            prefixes = self._patterns.setdefault((target.namespace, target.group), {})
            audience = prefixes.setdefault(target.prefix, {})
        audience[subscriber] = audience.get(subscriber, 0) + 1
        self.count += 1

    def remove(self, subscriber: S, target: Target) -> None:
        """Drop one subscription that was added."""
        if isinstance(target, ServiceKey):
            audience = self._exact[target]
            if _drop(audience, subscriber) and not audience:
                del self._exact[target]
        else:
            prefixes = self._patterns[target.namespace, target.group]
            audience = prefixes[target.prefix]
            if _drop(audience, subscriber) and not audience:
                del prefixes[target.prefix]
                if not prefixes:
                    del self._patterns[target.namespace, target.group]
        self.count -= 1

    def has_audience(self, key: ServiceKey) -> bool:
        """Tell whether anybody follows a service."""
        return key in self._exact or bool(self._matching(key))

    def audience(self, key: ServiceKey) -> list[S]:
        """Return who follows a service, each once."""
        exact = self._exact.get(key)
        matching = self._matching(key)
        if not matching:
            return [] if exact is None else list(exact)
        everyone: dict[S, None] = {} if exact is None else dict.fromkeys(exact)
        for audience in matching:
            everyone.update(dict.fromkeys(audience))
        return list(everyone)

    def _matching(self, key: ServiceKey) -> list[dict[S, int]]:
        prefixes = self._patterns.get((key.namespace, key.group))
        if prefixes is None:
            return []
        name = key.service
        if len(prefixes) <= len(name):
            return [audience for prefix, audience in prefixes.items() if name.startswith(prefix)]
        # Many patterns: a name has fewer beginnings than there are patterns to try.
        beginnings = (name[:end] for end in range(len(name) + 1))
        return [prefixes[prefix] for prefix in beginnings if prefix in prefixes]

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator."""
        audiences = list(self._exact.values())
        for prefixes in self._patterns.values():
            assert prefixes, "a pattern's namespace is empty and still here"
            audiences += prefixes.values()
        assert all(audiences), "an empty audience is still here"
        assert self.count == sum(sum(audience.values()) for audience in audiences)


def _drop(audience: dict[S, int], subscriber: S) -> bool:
    if audience[subscriber] > 1:
        audience[subscriber] -= 1
        return False
    del audience[subscriber]
    return True
