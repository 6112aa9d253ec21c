"""What recorded clients say of a service: which answers fit a table that changes."""

from __future__ import annotations

from ssgovern.model import ServiceKey
from ssgovern.sim.histories import Answer, Histories, Request, describe
from ssgovern.sim.linearizability import Verdict

KEY = ServiceKey("default", "default", "recorded")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def _say(histories: Histories, request: Request, answer: Answer | None, who: str = "a") -> None:
    call = histories.begin(who, KEY, request)
    if answer is not None:
        histories.answered(call, answer=answer)


def _verdict(*said: tuple[Request, Answer | None]) -> Verdict:
    histories = Histories(Clock())
    for request, answer in said:
        _say(histories, request, answer)
    return histories.judge()[KEY].verdict


def test_a_table_does_what_it_is_told() -> None:
    """Registrations, updates and removals show in the reads after them."""
    assert (
        _verdict(
            (Request("get"), ()),
            (Request("register", "x", 1.0), True),
            (Request("register", "y", 2.0), True),
            (Request("update", "x", 3.0), True),
            (Request("get"), (("x", 3.0), ("y", 2.0))),
            (Request("deregister", "y"), True),
            (Request("deregister", "y"), False),
            (Request("update", "y", 9.0), False),
            (Request("get"), (("x", 3.0),)),
        )
        is Verdict.LINEARIZABLE
    )


def test_answers_that_do_not_fit_are_found() -> None:
    """A removal of what is not there, an update of it, and a read of what was are wrong."""
    registered = (Request("register", "x", 1.0), True)
    for wrong in (
        (Request("deregister", "y"), True),
        (Request("deregister", "x"), False),
        (Request("update", "y", 1.0), True),
        (Request("update", "x", 1.0), False),
        (Request("get"), ()),
        (Request("get"), (("x", 2.0),)),
    ):
        assert _verdict(registered, wrong) is Verdict.IMPOSSIBLE, wrong


def test_a_write_without_an_answer_may_show_or_not() -> None:
    """Both are right; that it shows and then does not is wrong."""
    lost: tuple[Request, Answer | None] = (Request("register", "x", 1.0), None)
    there, gone = (Request("get"), (("x", 1.0),)), (Request("get"), ())
    assert _verdict(lost, gone, there) is Verdict.LINEARIZABLE
    assert _verdict(lost, there, gone) is Verdict.IMPOSSIBLE


def test_what_was_refused_did_not_happen() -> None:
    """A write that is known to have had no effect must not show."""
    histories = Histories(Clock())
    histories.begin("a", KEY, Request("register", "x", 1.0)).refused()
    _say(histories, Request("get"), (("x", 1.0),))
    [judgement] = histories.judge().values()
    assert judgement.verdict is Verdict.IMPOSSIBLE
    assert "recorded" in describe(KEY, judgement)
    assert "x" in describe(KEY, judgement)


def test_a_read_without_an_answer_says_nothing() -> None:
    """Only what was answered is judged, and writes that may have been done."""
    histories = Histories(Clock())
    histories.begin("a", KEY, Request("get"))
    _say(histories, Request("register", "x", 1.0), True, who="b")
    [judgement] = histories.judge().values()
    assert judgement.verdict is Verdict.LINEARIZABLE
    assert judgement.placed == 1
    assert not describe(KEY, judgement)
