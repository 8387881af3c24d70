"""breaker: closed, open, half open."""

from __future__ import annotations

from streammesh.breaker import Breaker


def broken(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(4):
        assert breaker.allows(at)
        breaker.begin(at)
        breaker.failed(at)
    return breaker


def test_it_opens_when_half_of_the_last_failed_and_enough_are_known() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(0)
    assert breaker.state == "closed"
    breaker.failed(0)
    assert breaker.state == "open"
    mixed = Breaker()
    for failed in (False, False, False, True, True):
        mixed.failed(0) if failed else mixed.succeeded()
    assert mixed.state == "closed"
    mixed.failed(0)
    assert mixed.state == "open"


def test_one_probe_after_its_rest() -> None:
    breaker = broken()
    assert not breaker.allows(4.9)
    assert breaker.allows(5.0)
    breaker.begin(5.0)
    assert breaker.state == "half-open"
    assert not breaker.allows(5.0), "one is under way"
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed(6)
    assert breaker.state == "closed", "what was is forgotten"


def test_each_probe_that_fails_doubles_the_rest() -> None:
    breaker, now = broken(), 0.0
    for rest in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        assert not breaker.allows(now + rest - 0.1)
        now += rest
        assert breaker.allows(now)
        breaker.begin(now)
        breaker.failed(now)


def test_a_probe_without_an_outcome_may_be_made_anew() -> None:
    breaker = broken()
    breaker.begin(5)
    breaker.forget()
    assert breaker.allows(5)


def test_those_sent_before_it_opened_say_nothing_new() -> None:
    breaker = broken()
    breaker.failed(1)
    assert breaker.allows(5)
