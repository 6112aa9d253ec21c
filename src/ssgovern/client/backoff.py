"""How long to wait before the next try.

Pure. Pauses grow by a factor up to a maximum, and each is drawn from the upper half of its
range: many clients that lost the same node do not come back in step, and none comes back at
once for ever.
"""

from __future__ import annotations

from ssgovern.runtime import Rng


class Backoff:
    """The pauses of one who tries again. `reset` after a success that lasted."""

    __slots__ = ("_factor", "_first_s", "_most_s", "_pause_s", "_rng")

    def __init__(self, rng: Rng, *, first_s: float, most_s: float, factor: float = 2.0) -> None:
        assert 0.0 < first_s <= most_s, "a pause is positive and the first the shortest"
        assert factor >= 1.0, "pauses do not shrink"
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self._factor = factor
        self._pause_s = first_s

    def __repr__(self) -> str:
        return f"<Backoff next<={self._pause_s:g}s most={self._most_s:g}s>"

    def next_pause_s(self) -> float:
        """Return the next pause and lengthen the one after it."""
        pause_s = self._pause_s
        self._pause_s = min(self._most_s, pause_s * self._factor)
        return self._rng.uniform(pause_s / 2, pause_s)

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self._pause_s = self._first_s
