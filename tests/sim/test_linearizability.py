"""The judge of histories: what it lets pass and what it must not."""

from __future__ import annotations

import itertools
import random

import pytest

from ssgovern.sim.linearizability import Judgement, Operation, Verdict, judge

State = int
Request = tuple[str, int]
Answer = int
Op = Operation[Request, Answer]


def register_model(state: State, request: Request, answer: Answer | None) -> State | None:
    """A number that is written, read, or replaced if it is what one thinks."""
    kind, value = request
    if kind == "write":
        return value
    if kind == "add":
        return state + value if answer in (None, state + value) else None
    return state if answer in (None, state) else None


def op(
    client: str, invoked: float, returned: float, request: Request, answer: Answer | None = 0
) -> Op:
    return Operation(client, invoked, returned, request, answer)


def judged(*history: Op, steps_max: int = 100_000) -> Judgement:
    return judge(history, 0, register_model, steps_max=steps_max)


def test_an_empty_history_is_linearizable() -> None:
    """Nobody saw anything wrong where nobody saw anything."""
    assert judged().verdict is Verdict.LINEARIZABLE


def test_one_after_the_other() -> None:
    """What was written is read, until something else is."""
    found = judged(
        op("a", 0, 1, ("write", 7)),
        op("b", 2, 3, ("read", 0), 7),
        op("a", 4, 5, ("write", 8)),
        op("b", 6, 7, ("read", 0), 8),
    )
    assert found == Judgement(Verdict.LINEARIZABLE, 4, ())


def test_a_read_beside_a_write_may_see_either() -> None:
    """While a write is under way, both what was and what will be is right."""
    for seen in (0, 7):
        found = judged(op("a", 0, 10, ("write", 7)), op("b", 4, 5, ("read", 0), seen))
        assert found.verdict is Verdict.LINEARIZABLE


def test_a_stale_read_is_found() -> None:
    """Who reads after a write returned does not see what was before it."""
    found = judged(
        op("a", 0, 1, ("write", 7)),
        op("b", 2, 3, ("read", 0), 0),
    )
    assert found.verdict is Verdict.IMPOSSIBLE
    assert found.placed == 1
    assert "b: ('read', 0) -> 0" in found.stuck[0]


def test_reads_that_go_back_are_found() -> None:
    """Two readers one after the other do not see a write come and go."""
    found = judged(
        op("a", 0, 10, ("write", 7)),
        op("b", 1, 2, ("read", 0), 7),
        op("c", 3, 4, ("read", 0), 0),
    )
    assert found.verdict is Verdict.IMPOSSIBLE


def test_a_lost_write_is_found() -> None:
    """An acknowledged write is seen although another's outcome is not known."""
    found = judged(
        op("a", 0, 1, ("write", 7)),
        op("b", 0, 1, ("write", 8), None),
        op("c", 2, 3, ("read", 0), 0),
    )
    assert found.verdict is Verdict.IMPOSSIBLE


def test_what_was_never_answered_may_take_effect_late_or_never() -> None:
    """A write without an answer is seen at once, after others, or not at all."""
    lost = op("a", 0, 1, ("write", 7), None)
    write = op("b", 2, 3, ("write", 8))
    for first, second in ((8, 8), (7, 7), (8, 7)):
        found = judged(
            lost,
            write,
            op("c", 4, 5, ("read", 0), first),
            op("c", 6, 7, ("read", 0), second),
        )
        assert found.verdict is Verdict.LINEARIZABLE, (first, second)


def test_what_was_never_answered_takes_effect_once() -> None:
    """A write without an answer does not come back after it was overwritten."""
    found = judged(
        op("a", 0, 1, ("write", 7), None),
        op("c", 2, 3, ("read", 0), 7),
        op("b", 4, 5, ("write", 8)),
        op("c", 6, 7, ("read", 0), 7),
    )
    assert found.verdict is Verdict.IMPOSSIBLE


def test_an_effect_does_not_precede_its_cause() -> None:
    """A value is not read before anybody began to write it."""
    found = judged(op("c", 0, 1, ("read", 0), 7), op("a", 2, 3, ("write", 7)))
    assert found.verdict is Verdict.IMPOSSIBLE


def test_answers_of_writes_count() -> None:
    """Two additions that were both told the same sum cannot both have happened."""
    fits = judged(op("a", 0, 9, ("add", 1), 1), op("b", 0, 9, ("add", 1), 2))
    assert fits.verdict is Verdict.LINEARIZABLE
    twice = judged(op("a", 0, 9, ("add", 1), 1), op("b", 0, 9, ("add", 1), 1))
    assert twice.verdict is Verdict.IMPOSSIBLE


def test_a_search_that_takes_too_long_says_so() -> None:
    """A cut off search claims nothing."""
    history = [op(f"c{n}", 0, 9, ("add", 1 << n), None) for n in range(12)]
    history.append(op("r", 10, 11, ("read", 0), -1))
    assert judged(*history, steps_max=50).verdict is Verdict.UNDECIDED
    assert judged(*history).verdict is Verdict.IMPOSSIBLE


def _simulated(rng: random.Random, clients: int, rounds: int) -> list[Op]:
    """Operations of one machine: each takes effect at a drawn moment within its time."""
    pending: list[tuple[float, float, float, str, Request]] = []
    for number in range(clients):
        now = 0.0
        for _ in range(rounds):
            now += rng.random()
            invoked, effect = now, now + rng.random()
            now = effect + rng.random()
            request = (rng.choice(["write", "add", "read"]), rng.randrange(1, 9))
            pending.append((effect, invoked, now, f"c{number}", request))
    state = 0
    history = []
    for effect, invoked, returned, client, request in sorted(pending):
        del effect
        kind, value = request
        state = value if kind == "write" else state + value if kind == "add" else state
        answer = 0 if kind == "write" else state
        unknown = kind != "read" and rng.random() < 0.1
        history.append(op(client, invoked, returned, request, None if unknown else answer))
    return history


@pytest.mark.parametrize("seed", range(20))
def test_histories_of_one_machine_pass_and_spoilt_ones_do_not(seed: int) -> None:
    """What one machine did is linearizable; a read of what never was is not."""
    rng = random.Random(seed)
    history = _simulated(rng, clients=4, rounds=20)
    assert judged(*history).verdict is Verdict.LINEARIZABLE

    reads = [index for index, each in enumerate(history) if each.request[0] == "read"]
    index = rng.choice(reads)
    spoilt = history[index]
    history[index] = op(spoilt.client, spoilt.invoked, spoilt.returned, spoilt.request, -5)
    assert judged(*history).verdict is not Verdict.LINEARIZABLE


def _by_trying_all(history: list[Op]) -> bool:
    """The definition, tried out: some order of some of the unanswered and all others."""
    known = [each for each in history if each.answer is not None]
    unknown = [each for each in history if each.answer is None]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                if _fits(order):
                    return True
    return False


def _fits(order: tuple[Op, ...]) -> bool:
    state = 0
    for index, each in enumerate(order):
        if any(
            later.answer is not None and later.returned < each.invoked
            for later in order[index + 1 :]
        ):
            return False
        after = register_model(state, each.request, each.answer)
        if after is None:
            return False
        state = after
    return True


@pytest.mark.parametrize("seed", range(60))
def test_the_search_agrees_with_the_definition(seed: int) -> None:
    """Small histories, right and wrong ones: the verdict is that of trying every order."""
    rng = random.Random(seed)
    history = []
    for client in range(5):
        invoked = rng.randrange(10)
        returned = invoked + rng.randrange(1, 6)
        kind = rng.choice(["write", "add", "read"])
        answer = rng.choice([0, 1, 2, 3])
        unknown = kind != "read" and rng.random() < 0.4
        history.append(
            op(
                f"c{client}",
                invoked,
                returned,
                (kind, rng.randrange(1, 3)),
                None if unknown else answer,
            )
        )
    expected = Verdict.LINEARIZABLE if _by_trying_all(history) else Verdict.IMPOSSIBLE
    assert judged(*history).verdict is expected
