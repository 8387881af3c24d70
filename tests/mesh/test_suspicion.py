"""Suspicion and self-health, on a clock of the test's."""

from __future__ import annotations

import random

from streammesh.suspicion import Health, Suspicion

BEAT = 0.2
LEASE = 1.0


def punctual(count: int, until: float) -> Suspicion:
    suspicion = Suspicion(BEAT)
    for step in range(round(until / BEAT) + 1):
        for peer in range(count):
            suspicion.heard(f"p.{peer}", step * BEAT)
    return suspicion


def test_a_late_peer_is_suspect_until_it_is_heard_again() -> None:
    suspicion = punctual(5, 2.0)
    for peer in range(1, 5):
        suspicion.heard(f"p.{peer}", 2.5)
    assert suspicion.judge(2.59).suspected == {}
    assert suspicion.judge(2.61).suspected == {"p.0": "late"}
    assert suspicion.why("p.0") == "late"
    assert suspicion.why("p.1") == ""
    assert suspicion.judge(2.62).suspected == {}, "said once"
    suspicion.heard("p.0", 2.7)
    assert suspicion.judge(2.7).cleared == ("p.0",)


def test_who_is_often_late_is_given_more_time() -> None:
    suspicion = Suspicion(BEAT)
    rng, at = random.Random(3), 0.0
    for _ in range(100):
        at += BEAT * rng.uniform(1, 3.5)
        suspicion.heard("slow.1", at)
    assert suspicion.judge(at + 3.6 * BEAT).suspected == {}
    assert suspicion.judge(at + 8 * BEAT).suspected == {"slow.1": "late"}


def test_an_open_breaker_makes_suspect_and_a_closed_one_clears() -> None:
    suspicion = punctual(3, 1.0)
    suspicion.broken("p.1", True)
    assert suspicion.judge(1.0).suspected == {"p.1": "breaker"}
    assert suspicion.firsthand() == ("p.1",)
    suspicion.broken("p.1", False)
    assert suspicion.judge(1.0).cleared == ("p.1",)


def test_two_peers_are_believed_and_one_is_not() -> None:
    suspicion = punctual(4, 1.0)
    suspicion.reported("p.1", ["p.3"])
    suspicion.reported("p.3", ["p.3"])
    assert suspicion.judge(1.0).suspected == {}
    suspicion.reported("p.2", ["p.3"])
    assert suspicion.judge(1.0).suspected == {"p.3": "peers"}
    assert suspicion.firsthand() == (), "hearsay is not passed on"
    suspicion.forget("p.2")
    assert suspicion.judge(1.0).cleared == ("p.3",), "who has left reports no more"


def test_when_most_look_late_nobody_is() -> None:
    suspicion = punctual(10, 2.0)
    suspicion.broken("p.9", True)
    said = suspicion.judge(30.0)
    assert said.held
    assert said.suspected == {"p.9": "breaker"}
    for peer in range(6):
        suspicion.heard(f"p.{peer}", 30.1)
    assert set(suspicion.judge(30.2).suspected) == {"p.6", "p.7", "p.8"}


def test_an_observer_that_stood_still_judges_only_after_three_ticks_in_time() -> None:
    health = Health(BEAT, BEAT)
    seen = []
    for at in (0.0, 0.2, 0.4, 10.0, 10.2, 10.4, 10.6):
        health.ticked(at)
        seen.append((health.sound, health.stretch))
    assert seen == [(True, 1), (True, 1), (True, 1), (False, 2), (False, 2), (False, 2), (True, 1)]
    health.stumbled()
    assert not health.sound


def test_an_unhealthy_observer_waits_longer() -> None:
    suspicion = punctual(3, 2.0)
    for peer in range(1, 3):
        suspicion.heard(f"p.{peer}", 2.9)
    suspicion.health.stumbled()
    assert suspicion.judge(3.0).suspected == {}
    assert suspicion.judge(3.21).suspected == {"p.0": "late"}
