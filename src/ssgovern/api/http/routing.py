"""Which path is which operation. Pure; knows no request.

A pattern is parts joined by slashes; a part in braces stands for any part that is not empty and
takes its name. Parts are compared as they were sent, still encoded, so that an encoded slash
never makes two parts of one. Invariant: a literal part goes before a name.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_ANY = ""
"""The key of a named part: no part that is matched is empty."""


class Found(NamedTuple, Generic[T]):
    """What a path leads to."""

    by_method: dict[str, T]
    names: dict[str, str]
    """Named parts, still encoded."""


class _Place(Generic[T]):
    __slots__ = ("by_method", "names", "next")

    def __init__(self) -> None:
        self.next: dict[str, _Place[T]] = {}
        self.by_method: dict[str, T] = {}
        self.names: tuple[str, ...] = ()


class Routes(Generic[T]):
    """A table of paths."""

    def __init__(self) -> None:
        self._root: _Place[T] = _Place()

    def add(self, method: str, pattern: str, target: T) -> None:
        """Add a pattern. Two that differ only in the names of their parts are a mistake."""
        place = self._root
        names = []
        for part in pattern.split("/")[1:]:
            if part.startswith("{"):
                names.append(part[1:-1])
                part = _ANY
            place = place.next.setdefault(part, _Place())
        assert method not in place.by_method, f"{method} {pattern} is there twice"
        assert place.names in ((), tuple(names)), f"{pattern}: other names than {place.names}"
        place.names = tuple(names)
        place.by_method[method] = target

    def find(self, raw_path: str) -> Found[T] | None:
        """Return what a path leads to; None: nowhere."""
        place = self._root
        values = []
        for part in raw_path.split("/")[1:]:
            following = place.next.get(part) if part else None
            if following is None:
                following = place.next.get(_ANY)
                if following is None or not part:
                    return None
                values.append(part)
            place = following
        if not place.by_method:
            return None
        return Found(place.by_method, dict(zip(place.names, values, strict=True)))
