"""run_commit: going on, parking, every end, every effect; the fence, lost replies; and what tells a run of its steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lua.run_shard import CLIENT, Doing, Runs, child, task, timer
from tests.lua.shard import KEEP, POISON, Shard, again, cancelled, complete, dead, expire, fail, reject, release

CALL = {"what": "call", "path": "x.0", "name": "x", "after": 0}
ANEW = {"what": "start", "workflow": "w", "version": 1, "input": {"n": 2}, "generation": 1}


@pytest.fixture
def runs(shard: Shard) -> Runs:
    return Runs(shard)


# -- words


def test_going_on_writes_records_and_effects_and_keeps_the_run(runs: Runs) -> None:
    one = runs.running()
    assert runs.commit(Doing(one, records=[CALL], effects=[task()])) == [["ok"]]
    assert runs.state() == "running"
    assert runs.told() == [("call", "x")]
    assert runs.open() == {"x.0": "task r:x.0"}
    assert runs.wakes() == [one.entry]


def test_what_was_told_meanwhile_comes_along(runs: Runs) -> None:
    one = runs.running()
    runs.signal("a")
    ((word, told),) = runs.commit(Doing(one, records=[CALL], seen=1))
    assert (word, json.loads(told)["name"]) == ("ok", "a")
    assert runs.told() == [("signal", "a"), ("call", "x")]


@pytest.mark.parametrize("then", ["park", "succeeded", "failed", "cancelled", "again", "stuck"])
def test_nothing_unread_is_left_behind(runs: Runs, then: str) -> None:
    one = runs.running()
    runs.signal("a")
    before = runs.shard.dump()
    ((word, told),) = runs.commit(Doing(one, then, "1", records=[ANEW], effects=[task(), timer()], seen=1))
    assert (word, json.loads(told)["name"]) == ("more", "a")
    assert runs.shard.dump() == before
    assert runs.do(one, then, "1", records=[ANEW]) == "ok"


def test_a_parked_run_holds_nothing(runs: Runs) -> None:
    one = runs.running()
    assert runs.do(one, "park") == "ok"
    assert runs.state() == "parked"
    assert runs.wakes() == []
    assert runs.shard.pending("runs:w") == {}
    assert runs.renew(one)[0] == ["run r 1"]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_an_end_is_told_once_and_kept_for_a_while(runs: Runs, state: str) -> None:
    one = runs.running(waiters="c-8 c-9")
    value = '{"n":1}' if state == "succeeded" else 'b"oom'
    assert runs.do(one, state, value) == "ok"
    head = runs.head()
    assert (head["state"], head["result" if state == "succeeded" else "error"]) == (state, value)
    end = runs.journal()[-1]
    assert (end["what"], end["state"], end.get("result", end.get("error"))) == (
        "end", state, {"n": 1} if state == "succeeded" else 'b"oom',
    )  # fmt: skip
    for client in ("c-8", "c-9"):
        (reply,) = runs.shard.replies(client)
        assert reply == {"id": "run r", "state": state, "value": value}
    assert 0 < runs.shard.ttl("run:r") <= KEEP
    assert 0 < runs.shard.ttl("run:r:journal") <= KEEP
    assert runs.wakes() == []
    assert runs.shard.pending("runs:w") == {}
    assert runs.do(one, "failed", "late", number="9") == "fenced"


@pytest.mark.parametrize("close", ["cancel", "terminate", "abandon"])
def test_an_end_takes_back_what_is_open(runs: Runs, close: str) -> None:
    one = runs.running()
    runs.do(one, effects=[task(), timer(runs.shard.now() + 99_999), child(close=close)])
    assert runs.do(one, "succeeded", "1", number="2") == "ok"
    assert runs.open() == {}
    assert runs.shard.state("r:x.0") == "cancelled"
    assert runs.shard.due() == {}
    assert runs.state("r:k.0") == ("cancelled" if close == "terminate" else "queued")
    runs.wakes("r:k.0", "runs:k")


def test_continuing_as_new(runs: Runs) -> None:
    one = runs.running()
    runs.do(one, records=[CALL], effects=[task(), timer(runs.shard.now() + 99_999)])
    assert runs.do(one, "again", records=[ANEW, {"what": "signal", "name": "s"}], number="2") == "ok"
    assert runs.told() == [("signal", "s")]
    assert runs.open() == {}
    assert runs.shard.due() == {}
    assert runs.shard.state("r:x.0") == "cancelled"
    assert len(runs.wakes()) == 1
    assert runs.do(one, number="3") == "fenced"
    two = runs.take("bob.2")
    assert (two.attempt, len(two.journal)) == (2, 2)


def test_an_answer_to_the_old_beginning_is_none_to_the_new_one(runs: Runs) -> None:
    one = runs.running()
    runs.do(one, effects=[task()])
    working = runs.shard.take("wes.1")
    runs.do(one, "again", records=[ANEW], number="2")
    two = runs.take()
    assert runs.do(two, effects=[task("r:g1:x.0")]) == "ok"
    assert runs.shard.settle("wes.1", complete(working, '"old"')) == ["ok"]
    assert runs.told() == []
    assert runs.open() == {"x.0": "task r:g1:x.0"}


# -- fence and lost replies


@pytest.mark.parametrize("then", ["continue", "park", "succeeded", "failed", "cancelled", "stuck", "again"])
def test_a_commit_that_is_repeated_counts_once(runs: Runs, then: str) -> None:
    one = runs.running()
    seen = 1
    if then == "continue":
        runs.signal("a")
    item = Doing(one, then, "1", records=[ANEW if then == "again" else CALL], effects=[task(), child()], seen=seen)
    first = runs.commit(item)
    before = runs.shard.dump()
    assert runs.commit(item) == first
    assert runs.shard.dump() == before


@pytest.mark.parametrize("then", ["continue", "park", "succeeded", "stuck", "again"])
def test_others_change_nothing(runs: Runs, then: str) -> None:
    one = runs.running()
    before = runs.shard.dump()
    effects = [task(), timer(), child(), ("status", "status", "{}")]
    assert runs.do(one, then, "1", agent="bob.2", records=[CALL], effects=effects) == "fenced"
    assert runs.commit(Doing(one, then, "1", [CALL], effects, attempt=7)) == [["fenced"]]
    assert runs.shard.dump() == before


# -- effects


def test_a_task_is_enqueued_as_the_runs(runs: Runs) -> None:
    one = runs.running()
    runs.do(one, effects=[task("r:x.0", "x.0", '{"n":1}', "priority", "normal", "header.k", "v")])
    record = runs.shard.record("r:x.0")
    assert (record["state"], record["run"], record["step"], record["payload"]) == ("queued", "r", "x.0", '{"n":1}')
    assert runs.shard.take("wes.1").fields["k"] == "v"


def test_a_task_whose_id_is_taken_is_answered_by_the_refusal(runs: Runs) -> None:
    runs.shard.new("r:x.0", payload='{"other":1}')
    one = runs.running()
    runs.do(one, effects=[task()])
    assert runs.open() == {}
    assert runs.told() == [("failed", "x.0")]
    assert "already" in runs.journal()[-1]["error"]


def test_a_stream_that_is_none_is_answered_as_well_and_harms_no_neighbour(runs: Runs) -> None:
    runs.shard.redis.set(runs.shard.key("tasks:x"), "text")
    one, two = runs.running("r1"), runs.running("r2")
    assert runs.commit(Doing(one, effects=[task("r1:x.0")]), Doing(two, "succeeded", "1")) == [["ok"], ["ok"]]
    assert runs.told("r1") == [("failed", "x.0")]
    assert runs.state("r2") == "succeeded"
    runs.shard.redis.delete(runs.shard.key("tasks:x"))


def test_a_timer_fires_once_and_not_early(runs: Runs) -> None:
    runs.parked("r", timer(runs.shard.now() + 60_000))
    assert runs.shard.fire()[0] == 0
    assert runs.state() == "parked"
    assert runs.shard.fire(ahead=99_999) == (1, "")
    assert runs.told() == [("fired", "timer.0")]
    assert len(runs.wakes()) == 1
    assert runs.open() == {}
    assert runs.shard.fire(ahead=99_999) == (0, "")


def test_a_dropped_timer_never_fires(runs: Runs) -> None:
    one = runs.running()
    runs.do(one, effects=[timer(5)])
    runs.do(one, effects=[("drop", "timer.0", "timer")], number="2")
    assert runs.shard.due() == {}
    assert runs.open() == {}
    runs.do(one, effects=[("drop", "timer.0", "timer")], number="3")
    assert runs.told() == []


def test_a_dropped_task_is_cancelled_and_tells_nothing(runs: Runs) -> None:
    one = runs.running()
    runs.do(one, effects=[task()])
    runs.do(one, effects=[("drop", "x.0", "task r:x.0")], number="2")
    assert runs.shard.state("r:x.0") == "cancelled"
    assert runs.told() == []


def test_a_child_runs_and_answers_its_parent(runs: Runs) -> None:
    runs.parked("r", child())
    assert runs.open() == {"k.0": "child r:k.0 cancel"}
    kid = runs.take("bob.2", stream="runs:k")
    assert runs.do(kid, "succeeded", '{"n":1}', agent="bob.2") == "ok"
    assert runs.told() == [("done", "k.0")]
    assert runs.journal()[-1]["result"] == {"n": 1}
    assert runs.open() == {}
    assert len(runs.wakes()) == 1


def test_a_child_that_has_ended_already_answers_at_once_and_is_read(runs: Runs) -> None:
    runs.do(_kid(runs), "failed", "no")
    one = runs.running()
    assert runs.do(one, "park", effects=[child()]) == "ok"
    assert runs.told() == [("failed", "k.0")]
    assert len(runs.wakes()) == 1, "parked with something unread it would wait for ever"


def _kid(runs: Runs) -> Any:
    runs.start("r:k.0", workflow="k")
    return runs.take(stream="runs:k")


def test_a_child_that_two_places_wait_for_answers_both(runs: Runs) -> None:
    runs.parked("r", child(path="k.0"), child(path="k.1"))
    assert runs.do(runs.take(stream="runs:k"), "succeeded", "1") == "ok"
    assert sorted(runs.told()) == [("done", "k.0"), ("done", "k.1")]


def test_a_status_is_there_at_once(runs: Runs) -> None:
    runs.do(runs.running(), effects=[("status", "status", '{"n":1}')])
    assert runs.head()["status"] == '{"n":1}'


# -- what tells a run of its step


ENDS = {
    "complete": (lambda one: complete(one, '{"n":1}'), "done"),
    "reject": (lambda one: reject(one, "no"), "failed"),
    "dead": (lambda one: dead(one, "lost"), "failed"),
    "cancel": (lambda one: cancelled(one), "failed"),
    "expire": (lambda one: expire(one), "failed"),
}


@pytest.mark.parametrize("verb", ENDS)
def test_the_end_of_a_step_is_told_once(runs: Runs, verb: str) -> None:
    make, word = ENDS[verb]
    runs.parked("r", task())
    one = runs.shard.take("wes.1")
    assert runs.shard.settle("wes.1", make(one)) == ["ok"]
    runs.shard.settle("wes.1", make(one))
    assert runs.told() == [(word, "x.0")]
    assert runs.open() == {}
    assert len(runs.wakes()) == 1
    if word == "failed":
        assert runs.journal()[-1]["state"] == runs.shard.state("r:x.0")


@pytest.mark.parametrize("make", [fail, again, release], ids=lambda make: make.__name__)
def test_a_step_that_will_be_tried_again_tells_nothing(runs: Runs, make: Any) -> None:
    runs.parked("r", task())
    runs.shard.settle("wes.1", make(runs.shard.take("wes.1")))
    assert runs.told() == []
    assert runs.state() == "parked"
    runs.shard.fire(ahead=99_999)
    assert runs.shard.settle("wes.1", complete(runs.shard.take("wes.1"))) == ["ok"]
    assert runs.told() == [("done", "x.0")]


def test_a_step_that_is_cancelled_from_outside_is_told(runs: Runs) -> None:
    runs.parked("r", task())
    assert runs.shard.cancel("r:x.0") == ["ok"]
    assert runs.journal()[-1]["state"] == "cancelled"
    assert runs.shard.cancel("r:x.0") == ["closed cancelled"]
    assert runs.told() == [("failed", "x.0")]


def test_a_step_that_expires_in_the_queue_or_is_poison_is_told(runs: Runs) -> None:
    runs.parked("r", task("r:x.0", "x.0", "{}", "deadline", "1"), task("r:x.1", "x.1"))
    taken = runs.shard.take("wes.1")
    assert taken.id == "r:x.1"
    assert runs.told() == [("failed", "x.0")]
    before = "wes.1"
    for n in range(POISON):
        runs.shard.crash(before)
        runs.shard.claim(f"w{n}.1", orphans=[("tasks:x", before)])
        before = f"w{n}.1"
    assert runs.told() == [("failed", "x.0"), ("failed", "x.1")]
    assert runs.journal()[-1]["state"] == "dead"


def test_a_step_that_its_run_no_longer_wants_is_skipped_and_who_else_waits_is_told(runs: Runs) -> None:
    runs.parked("r", task())
    runs.shard.wait("c-7", "r:x.0")
    runs.shard.take("wes.1")
    runs.act("terminate")
    assert runs.shard.record("r:x.0")["cancel"] == "its run"
    runs.shard.redis.hdel(runs.shard.key("task:r:x.0"), "cancel")
    runs.shard.crash("wes.1")
    assert runs.shard.claim("bob.2", orphans=[("tasks:x", "wes.1")]) == []
    assert runs.shard.state("r:x.0") == "cancelled"
    assert [reply["state"] for reply in runs.shard.replies("c-7")] == ["cancelled"]


def test_an_answer_nudges_an_executor_that_lingers(runs: Runs) -> None:
    one = runs.running()
    runs.do(one, effects=[task()])
    runs.shard.settle("wes.1", complete(runs.shard.take("wes.1"), '"r"'))
    (nudge,) = runs.shard.replies(CLIENT)
    assert json.loads(nudge["value"])["result"] == "r"
    assert runs.wakes() == [one.entry]
