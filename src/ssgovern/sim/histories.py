"""What recorded clients asked and were answered, service by service, and whether it fits together.

Pure, but for the clock it is handed. A service is a table from instance id to a number, which
recorded clients keep in the weight of persistent instances: nothing but their own requests
changes it, whatever becomes of their sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssgovern.model import ServiceKey
from ssgovern.sim.linearizability import Judgement, Operation, Verdict, judge

Table = tuple[tuple[str, float], ...]
"""Ids with their numbers, sorted: a state, and what a read answers."""

EMPTY: Table = ()


class Request(NamedTuple):
    kind: str
    """register, deregister, update or get."""
    instance_id: str = ""
    number: float = 0.0


Answer = bool | Table
"""Of a read, the table; otherwise whether there was something to change."""


class Call:
    """One request under way. Ended once, by exactly one of its methods, or left open."""

    def __init__(self, client: str, request: Request, invoked: float) -> None:
        self.client = client
        self.request = request
        self.invoked = invoked
        self.returned = invoked
        self.answer: Answer | None = None
        self.had_no_effect = False

    def answered(self, answer: Answer, now: float) -> None:
        self.answer = answer
        self.returned = now

    def refused(self) -> None:
        """It is certain that nothing was done."""
        self.had_no_effect = True

    @property
    def counts(self) -> bool:
        """A read without an answer says nothing; a write without one may have been done."""
        if self.had_no_effect:
            return False
        return self.answer is not None or self.request.kind != "get"

    def operation(self) -> Operation[Request, Answer]:
        return Operation(self.client, self.invoked, self.returned, self.request, self.answer)


class Histories:
    """All calls of all recorded clients."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._calls: dict[ServiceKey, list[Call]] = {}

    def __len__(self) -> int:
        return sum(len(calls) for calls in self._calls.values())

    def begin(self, client: str, key: ServiceKey, request: Request) -> Call:
        call = Call(client, request, self._now())
        self._calls.setdefault(key, []).append(call)
        return call

    def answered(self, call: Call, *, answer: Answer) -> None:
        call.answered(answer, self._now())

    def judge(self) -> dict[ServiceKey, Judgement]:
        """Judge the history of every service."""
        return {
            key: judge([call.operation() for call in calls if call.counts], EMPTY, apply)
            for key, calls in self._calls.items()
        }


def apply(state: Table, request: Request, answer: Answer | None) -> Table | None:
    """Return the table after a request that was answered so; None if that answer is wrong."""
    if request.kind == "get":
        return state if answer in (None, state) else None
    table = dict(state)
    was_there = request.instance_id in table
    if request.kind == "register":
        # A registration succeeds whether or not there was one of that id before.
        table[request.instance_id] = request.number
        return tuple(sorted(table.items()))
    if answer is not None and answer != was_there:
        return None
    if not was_there:
        return state
    if request.kind == "deregister":
        del table[request.instance_id]
    else:
        assert request.kind == "update", request
        table[request.instance_id] = request.number
    return tuple(sorted(table.items()))


def describe(key: ServiceKey, judgement: Judgement) -> str:
    """Say where a history stops making sense; empty if it does not."""
    if judgement.verdict is not Verdict.IMPOSSIBLE:
        return ""
    stuck = "; ".join(judgement.stuck[:6])
    return (
        f"R2: {key}: no order of all calls explains the answers; after {judgement.placed}: {stuck}"
    )
