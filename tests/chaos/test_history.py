"""The checker is fair: good histories pass, each bad one breaks its own rule and no other.

A checker that never complains proves nothing. So every rule has hand-made histories here that break it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.checker import RULES
from tests.chaos.history import Execution
from tests.chaos.story import GOOD, STREAM, Story, begun, in_order_and_on_time, plain, poison, retried, zombie


@pytest.mark.parametrize("story", GOOD, ids=lambda story: story.__name__)
def test_good_histories_pass(story: Callable[[], Story]) -> None:
    report = story().judge(ordered=story is in_order_and_on_time)
    assert report.ok, str(report)
    assert not report.lost
    assert not report.settled_twice


# -- bad ones: (rule that must be broken, what the text must say, history) ---------------------------------------------

BAD: list[tuple[int, str, Callable[[], Story]]] = []


def breaks(rule: int, text: str) -> Callable[[Callable[[], Story]], Callable[[], Story]]:
    def kept(story: Callable[[], Story]) -> Callable[[], Story]:
        BAD.append((rule, text, story))
        return story

    return kept


@breaks(1, "lost: it was accepted, and at the end it is missing")
def lost_without_a_trace() -> Story:
    story = Story()
    story.enqueue("t")
    return story


@breaks(1, "lost: it was accepted, and at the end it is queued")
def never_run() -> Story:
    story = Story()
    story.enqueue("t")
    story.record("t", "queued")
    story.entries.append((STREAM, "1-1", "t"))
    return story


@breaks(1, "stuck as delayed")
def unknown_and_stuck() -> Story:
    story = Story()
    story.enqueue("t", "info")
    story.record("t", "delayed")
    story.due.append("task:t")
    return story


@breaks(1, "was created 2 times")
def created_twice() -> Story:
    story = plain()
    story.enqueue("t", created=True)
    return story


@breaks(1, "every request was refused")
def refused_and_done() -> Story:
    story = Story()
    story.enqueue("t", "fail")
    story.start("t", 1, "a.1")
    return story.done()


@breaks(1, "nobody enqueued it")
def out_of_nowhere() -> Story:
    story = Story()
    story.start("t", 1, "a.1")
    return story.done()


@breaks(2, "settled twice")
def two_winners() -> Story:
    story = begun()
    story.fault("pause", "a.1", 1)
    story.start("t", 2, "b.2")
    story.settle("t", 1, "a.1", "dead")
    story.settle("t", 2, "b.2", "dead")
    story.record("t", "dead", "b.2", 2, reason="attempts")
    return story


@breaks(2, "the record says succeeded by ('b.2', 2)")
def overwritten() -> Story:
    story = zombie()
    story.events = [event for event in story.events if event.op != "settle"]
    story.settle("t", 2, "b.2", "complete", "")
    story.settle("t", 1, "a.1", "complete", "ok")
    return story


@breaks(2, 'said "mine", the record says "done"')
def anothers_result() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "complete", value='"mine"')
    story.record("t", "succeeded", "a.1", 1)
    return story


@breaks(2, "who never said so")
def result_by_nobody() -> Story:
    story = begun()
    story.record("t", "succeeded", "a.1", 1)
    return story


@breaks(2, "was told `stale`, but its outcome is the recorded one")
def winner_told_stale() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "complete", "stale")
    story.record("t", "succeeded", "a.1", 1)
    return story


@breaks(2, "a client was told ('succeeded', 'other')")
def client_told_something_else() -> Story:
    story = plain()
    story.line("result", "ok", "t", state="succeeded", value="other")
    return story


@breaks(2, "nobody asked for it")
def cancelled_by_nobody() -> Story:
    story = Story()
    story.enqueue("t")
    story.record("t", "cancelled")
    return story


@breaks(3, "attempt 1 was given out 2 times, to a.1 and b.2")
def one_attempt_for_two() -> Story:
    story = begun()
    story.fault("pause", "a.1", 3)
    story.start("t", 1, "b.2")
    return story.done(agent="b.2")


@breaks(3, "the record knows only 1")
def attempt_went_back() -> Story:
    story = retried()
    story.records["t"]["attempt"] = "1"
    story.records["t"]["agent"] = "b.2"
    story.events = [event for event in story.events if event.op != "settle" or event.data.get("attempt") != 2]
    story.line("settle", "invoke", "t", "b.2", attempt=1, agent="b.2", verb="complete", value='"done"')
    return story


@breaks(3, "attempt 1 was claimed after attempt 2")
def claims_out_of_order() -> Story:
    story = Story()
    story.enqueue("t")
    story.start("t", 2, "b.2", redis=1000)
    story.settle("t", 2, "b.2", "again")
    story.start("t", 1, "a.1", redis=2000)
    story.settle("t", 1, "a.1", "complete", "stale")
    story.record("t", "dead", "b.2", 2, reason="poison")
    return story


@breaks(3, "attempt 1 started after 2 was settled")
def started_after_the_end() -> Story:
    story = Story()
    story.enqueue("t")
    story.start("t", 2, "b.2")
    story.done(attempt=2, agent="b.2")
    story.fault("kill", "b.2")
    story.start("t", 1, "a.1")
    story.settle("t", 1, "a.1", "complete", "stale")
    return story


@breaks(4, "nobody executed it")
def never_executed() -> Story:
    story = Story()
    story.enqueue("t")
    return story.done()


@breaks(4, "its effect was applied 0 times")
def marked_but_not_done() -> Story:
    story = plain()
    story.effects.clear()
    return story


@breaks(4, "its effect was applied 2 times")
def done_twice() -> Story:
    story = plain()
    story.effects["t"] = 2
    return story


@breaks(4, "attempt 2 by b.2 has no reason after 1")
def run_again_for_nothing() -> Story:
    story = begun()
    story.settle("t", 1, "a.1", "complete", "stale")
    story.start("t", 2, "b.2")
    return story.done(attempt=2, agent="b.2")


@breaks(4, "is in the ledger alone")
def silent_execution() -> Story:
    story = plain()
    story.ledger.append(Execution("t", 7, "z.9"))
    return story


@breaks(5, "is left over; the record is succeeded")
def entry_left() -> Story:
    story = plain()
    story.entries.append((STREAM, "1-1", "t"))
    return story


@breaks(5, "pending with a.1 is left over; the record is missing")
def pending_without_entry() -> Story:
    story = plain()
    story.pending.append((STREAM, "1-1", "a.1"))
    return story


@breaks(5, "it is due, and succeeded")
def due_though_done() -> Story:
    story = plain()
    story.due.append("task:t")
    return story


@breaks(5, "dead, with 2 dead letters")
def two_letters() -> Story:
    story = poison()
    story.letters.append(("echo", "t"))
    return story


@breaks(7, "{mesh}:task:t has no time to live")
def record_for_ever() -> Story:
    story = plain()
    story.ttls["{mesh}:task:t"] = None
    return story


@breaks(7, "{mesh}:agent:a.1 has no time to live")
def agent_for_ever() -> Story:
    story = plain()
    story.ttls |= {"{mesh}:agent:a.1": None, "{mesh}:tasks:echo": None, "{mesh}:cap:echo:agents": None}
    return story


@breaks(8, "entry 9-1 was delivered after (9, 5)")
def out_of_order() -> Story:
    story = Story()
    for id, entry in (("t1", "9-5"), ("t2", "9-1")):
        story.enqueue(id)
        story.start(id, 1, "a.1", stream=STREAM, entry=entry)
        story.done(id)
    return story


@breaks(9, "started 400 ms before it was due")
def too_early() -> Story:
    story = Story()
    story.enqueue("t", due=5000)
    story.start("t", 1, "a.1", redis=4600)
    return story.done()


@breaks(10, "attempts 1 and 2 overlap, and nobody stalled")
def two_at_a_time() -> Story:
    story = begun()
    story.fault("kill", "b.2")  # kills explain that it runs again, not that it runs twice at a time
    story.start("t", 2, "b.2")
    story.done(attempt=2, agent="b.2")
    story.settle("t", 1, "a.1", "complete", "stale")
    return story


@pytest.mark.parametrize(("rule", "text", "story"), BAD, ids=[f"{rule}-{story.__name__}" for rule, _, story in BAD])
def test_bad_histories_break_their_rule(rule: int, text: str, story: Callable[[], Story]) -> None:
    report = story().judge(ordered=rule == 8)
    assert {violation.rule for violation in report.violations} == {rule}, str(report)
    assert any(text in violation.text for violation in report.violations), str(report)


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_lost_and_settled_twice_are_named() -> None:
    assert lost_without_a_trace().judge().lost == ("t",)
    assert two_winners().judge().settled_twice == ("t",)
