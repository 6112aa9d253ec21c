"""All services of a node that have instances, in the order of their names.

Pure. For listing by pages and for patterns; one per node, over all its shards.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from ssgovern.model import Pattern, ServiceKey


class Directory:
    """A sorted list of keys; adding and removing costs one move of memory."""

    def __init__(self) -> None:
        self._keys: list[ServiceKey] = []

    def __len__(self) -> int:
        return len(self._keys)

    def fill(self, keys: Iterable[ServiceKey]) -> None:
        """Start from these keys, after recovery."""
        self._keys = sorted(keys)

    def add(self, key: ServiceKey) -> None:
        """Add a key that is not there."""
        insort(self._keys, key)

    def remove(self, key: ServiceKey) -> None:
        """Remove a key that is there."""
        index = bisect_left(self._keys, key)
        assert self._keys[index] == key, f"{key} is not in the directory"
        del self._keys[index]

    def replace(self, gone: Iterable[ServiceKey], come: Iterable[ServiceKey]) -> None:
        """Remove keys that are there and add keys that then are not, many at once."""
        leaving = dict.fromkeys(gone)
        keys = [key for key in self._keys if key not in leaving] if leaving else self._keys
        keys += come
        # Nearly sorted, which is what the sort is quick at.
        keys.sort()
        self._keys = keys

    def after(self, start: ServiceKey) -> Iterator[ServiceKey]:
        """Yield the keys at and after `start`. The directory must not change meanwhile."""
        keys = self._keys
        for index in range(bisect_left(keys, start), len(keys)):
            yield keys[index]

    def namespaces(self, prefix: str, after: str) -> Iterator[str]:
        """Yield the namespaces behind `after` that start with a prefix.

        Costs a search for each. The directory must not change meanwhile.
        """
        keys = self._keys
        # No name has a "\0" in it: this is the first key behind a namespace.
        start = max(prefix, f"{after}\0") if after else prefix
        while (index := bisect_left(keys, ServiceKey(start, "", ""))) < len(keys):
            namespace = keys[index].namespace
            if not namespace.startswith(prefix):
                return
            yield namespace
            start = f"{namespace}\0"

    def matching(self, pattern: Pattern) -> Iterator[ServiceKey]:
        """Yield the keys a pattern covers. The directory must not change meanwhile."""
        for key in self.after(ServiceKey(pattern.namespace, pattern.group, pattern.prefix)):
            if not pattern.matches(key):
                return
            yield key
