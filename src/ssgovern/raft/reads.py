"""Reads at the leader that see all that was committed before they were asked for (thesis 6.4).

A read notes the commit index, waits until a round of heartbeats *begun after it* was answered
by a majority (so that there was no newer leader when it was asked), and may be served when the
noted index is applied. Reads that arrive together share a round.

Invariant: rounds of the waiting reads never fall.
"""

from __future__ import annotations

from collections import deque


class Reads:
    __slots__ = ("_confirming", "_new", "round")

    def __init__(self) -> None:
        self.round = 0
        """The last heartbeat round that was begun."""
        self._new: list[tuple[int, object]] = []
        self._confirming: deque[tuple[int, int, object]] = deque()

    @property
    def want_round(self) -> bool:
        return bool(self._new)

    def ask(self, commit: int, context: object) -> None:
        self._new.append((commit, context))

    def begin_round(self) -> int:
        """Begin a round of heartbeats; it confirms all that was asked before now."""
        self.round += 1
        self._confirming.extend((self.round, index, context) for index, context in self._new)
        self._new.clear()
        return self.round

    def take_confirmed(self, answered_round: int) -> list[tuple[int, object]]:
        found: list[tuple[int, object]] = []
        while self._confirming and self._confirming[0][0] <= answered_round:
            _, index, context = self._confirming.popleft()
            found.append((index, context))
        return found

    def take_all(self) -> list[object]:
        """Give up: return the contexts of all that waited."""
        found = [context for _, _, context in self._confirming]
        found += [context for _, context in self._new]
        self._confirming.clear()
        self._new.clear()
        return found

    def validate(self) -> None:
        rounds = [round_ for round_, _, _ in self._confirming]
        assert rounds == sorted(rounds), f"rounds fall: {rounds}"
        assert all(round_ <= self.round for round_ in rounds), f"{rounds} > {self.round}"
