"""Whether what clients saw of one object can have been the doing of one machine.

The search of Wing and Gong with Lowe's memory: operations are put into an order, one at a time,
that respects real time (what returned before another began comes first) and in which every answer
is right. Refuses to know what the object is: a model says what an operation makes of a state.

An operation without an answer may have taken effect at any time after it began, or never. An
operation that is known to have had no effect must not be in the history at all.

Invariant: a verdict other than UNDECIDED is exact; UNDECIDED means that the search was cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

StateT = TypeVar("StateT", bound=Hashable)
RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

STEPS_MAX: Final = 300_000
"""So many placements are tried before the search gives up."""


class Verdict(Enum):
    LINEARIZABLE = "linearizable"
    IMPOSSIBLE = "impossible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Operation(Generic[RequestT, AnswerT]):
    """What one client asked and was answered. `answer` None: it never learned."""

    client: str
    invoked: float
    returned: float
    request: RequestT
    answer: AnswerT | None

    def __str__(self) -> str:
        end = "?" if self.answer is None else f"{self.returned:.6f}"
        return f"[{self.invoked:.6f}..{end}] {self.client}: {self.request} -> {self.answer}"


Model = Callable[[StateT, RequestT, AnswerT | None], StateT | None]
"""What the state is after an operation with this answer (None: any); None if it is wrong."""


class Judgement(NamedTuple):
    verdict: Verdict
    placed: int
    """How many answered operations the longest order found has."""
    stuck: tuple[str, ...]
    """What could not follow the longest order."""


def judge(
    history: Sequence[Operation[RequestT, AnswerT]],
    initial: StateT,
    model: Model[StateT, RequestT, AnswerT],
    *,
    steps_max: int = STEPS_MAX,
) -> Judgement:
    """Search for an order of all answered operations, and of as many others as it takes."""
    return _Search(history, model, steps_max).run(initial)


class _Search(Generic[StateT, RequestT, AnswerT]):
    def __init__(
        self,
        history: Sequence[Operation[RequestT, AnswerT]],
        model: Model[StateT, RequestT, AnswerT],
        steps_max: int,
    ) -> None:
        self._operations = sorted(history, key=lambda operation: operation.invoked)
        self._returns = [
            math.inf if operation.answer is None else operation.returned
            for operation in self._operations
        ]
        self._answered = sum(
            1 << index for index, end in enumerate(self._returns) if end < math.inf
        )
        self._model = model
        self._steps_left = steps_max
        self._best = -1
        self._stuck: tuple[str, ...] = ()

    def run(self, initial: StateT) -> Judgement:
        verdict = self._verdict(initial)
        stuck = () if verdict is Verdict.LINEARIZABLE else self._stuck
        return Judgement(verdict, max(self._best, 0), stuck)

    def _verdict(self, initial: StateT) -> Verdict:
        answered = self._answered
        seen: dict[tuple[int, StateT], None] = {}
        # Depth first; the last one pushed is tried first.
        waiting: list[tuple[int, StateT]] = [(0, initial)]
        while waiting:
            placed, state = waiting.pop()
            if (placed, state) in seen:
                continue
            seen[placed, state] = None
            if placed & answered == answered:
                self._best = answered.bit_count()
                return Verdict.LINEARIZABLE
            self._steps_left -= 1
            if self._steps_left < 0:
                return Verdict.UNDECIDED
            candidates = self._candidates(placed)
            self._note(placed, candidates)
            for index in candidates:
                operation = self._operations[index]
                after = self._model(state, operation.request, operation.answer)
                if after is None or (operation.answer is None and after == state):
                    # Wrong; or it would change nothing and nobody waits for it.
                    continue
                waiting.append((placed | 1 << index, after))
        return Verdict.IMPOSSIBLE

    def _candidates(self, placed: int) -> list[int]:
        """Return what may come next: nothing unplaced returned before it began.

        Unanswered ones come first, and so are tried last: most histories need few of them.
        """
        first_return = math.inf
        found: list[int] = []
        # The lowest bit that is not set: all before it is placed.
        index = (~placed & (placed + 1)).bit_length() - 1
        operations, returns = self._operations, self._returns
        while index < len(operations) and operations[index].invoked <= first_return:
            if not placed >> index & 1:
                found.append(index)
                first_return = min(first_return, returns[index])
            index += 1
        found = [index for index in found if operations[index].invoked <= first_return]
        return sorted(found, key=lambda index: (-returns[index], -index))

    def _note(self, placed: int, candidates: Sequence[int]) -> None:
        count = (placed & self._answered).bit_count()
        if count > self._best:
            self._best = count
            self._stuck = tuple(str(self._operations[index]) for index in reversed(candidates))
