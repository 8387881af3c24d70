"""task_retry: finished tasks run again under the same id, with a fresh budget; dead letters are replayed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lua.shard import Outcome, Shard, ack, cancelled, complete, dead, expire, fail, reject

FINAL = [complete, reject, cancelled, expire, dead]


@pytest.mark.parametrize("verb", FINAL, ids=lambda verb: verb.__name__)
def test_a_finished_task_runs_again(shard: Shard, verb: Callable[..., Outcome]) -> None:
    shard.new("a", payload='{"n":1}', priority="high", extra={"header.tenant": "acme", "deadline": "+60000"})
    streams = ["inbox:ann.1", "tasks:x:high"]
    shard.settle("ann.1", verb(shard.take(streams=streams)))
    assert shard.retry("a") == "ok a"
    record = shard.record("a")
    assert record["state"] == "queued"
    old = {
        "result",
        "error",
        "error_detail",
        "reason",
        "letter",
        "finished_at",
        "failures",
        "deaths",
        "cancel",
        "deadline",
        "to",
        "progress",
    }
    assert not old & set(record)
    assert shard.ttl("task:a") == -1, "an unfinished task does not end"
    assert shard.letters() == []
    two = shard.take("bob.2", streams=["inbox:bob.2", "tasks:x:high"])
    assert (two.attempt, two.failures, two.deaths) == (2, 0, 0), "attempts only rise, or the fence would be blind"
    assert (two.fields["payload"], two.fields["tenant"]) == ('{"n":1}', "acme")


def test_what_is_not_finished_is_left_alone(shard: Shard) -> None:
    shard.new("queued")
    shard.new("delayed", when="+5000")
    before = shard.dump()
    assert shard.retry("queued") == "open queued"
    assert shard.retry("delayed") == "open delayed"
    assert shard.retry("nobody") == "missing"
    assert shard.dump() == before
    shard.take()
    assert shard.retry("queued") == "open running"


def test_twice_is_once(shard: Shard) -> None:
    shard.settle("ann.1", complete(shard.running("a")))
    shard.retry("a")
    before = shard.dump()
    assert shard.retry("a") == "open queued"
    assert shard.dump() == before


def test_a_zombie_of_the_first_life_is_refused(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", dead(one))
    shard.retry("a")
    two = shard.take("ann.1")
    assert shard.settle("ann.1", complete(one)) == ["stale"]
    assert shard.settle("ann.1", complete(two)) == ["ok"]


def test_a_letter_is_replayed_and_taken_away(shard: Shard) -> None:
    shard.settle("ann.1", dead(shard.running("a")))
    (place,) = shard.entries("dead:x")
    assert shard.replay(place) == "ok a"
    assert (shard.state("a"), shard.letters()) == ("queued", [])
    before = shard.dump()
    assert shard.replay(place) == "missing"
    assert shard.dump() == before


def test_a_replay_asked_again_since_its_reply_was_lost_is_ok(shard: Shard) -> None:
    shard.settle("ann.1", dead(shard.running("a")))
    (place,) = shard.entries("dead:x")
    shard.replay(place, word="w")
    before = shard.dump()
    assert shard.replay(place, word="w") == "ok a"
    assert shard.dump() == before


def test_a_letter_whose_record_has_ended_is_replayed_from_what_it_says(shard: Shard) -> None:
    shard.settle("ann.1", dead(shard.running("a", payload='{"n":1}')))
    shard.redis.delete(shard.key("task:a"))
    (place,) = shard.entries("dead:x")
    assert shard.replay(place) == "ok a"
    one = shard.take()
    assert (one.id, one.fields["payload"], shard.letters()) == ("a", '{"n":1}', [])
    assert shard.record("a")["enqueued_at"]


def test_a_letter_of_a_task_that_runs_again_already_stays(shard: Shard) -> None:
    shard.settle("ann.1", dead(shard.running("a")))
    (place,) = shard.entries("dead:x")
    shard.redis.delete(shard.key("task:a"))
    shard.new("a")
    assert shard.replay(place) == "open queued"
    assert len(shard.letters()) == 1


def test_a_task_for_one_agent_is_retried_by_anybody(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    shard.settle("ann.1", fail(shard.take("ann.1")))
    shard.cancel("a")
    assert shard.retry("a") == "ok a"
    assert shard.take("bob.2").id == "a"


def test_a_letter_of_a_message_cannot_be_run(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m", type="tell", payload="1")
    shard.settle(ann, ack(shard.take(ann), "dead boom"))
    shard.send(ann, id="n", type="tell", payload="1")
    shard.crash(ann)
    shard.drain(ann)
    before = shard.dump()
    assert [shard.replay(place, "inbox") for place in shard.entries("dead:inbox")] == ["message", "message"]
    assert shard.dump() == before


def test_a_record_of_another_type_is_missing(shard: Shard) -> None:
    shard.settle("ann.1", dead(shard.running("a")))
    (place,) = shard.entries("dead:x")
    shard.redis.delete(shard.key("task:a"))
    shard.redis.set(shard.key("task:a"), "mine")
    before = shard.dump()
    assert shard.retry("a") == "missing"
    assert shard.replay(place) == "missing"
    assert shard.dump() == before
    shard.redis.delete(shard.key("task:a"))


def test_into_a_stream_of_another_type_it_is_dead_again(shard: Shard) -> None:
    shard.settle("ann.1", dead(shard.running("a")))
    shard.redis.delete(shard.key("tasks:x"))
    shard.redis.set(shard.key("tasks:x"), "mine")
    shard.retry("a")
    assert (shard.state("a"), shard.record("a")["reason"]) == ("dead", "stream_unusable")
    assert len(shard.letters()) == 1
    assert shard.ttl("task:a") > 0
    shard.redis.delete(shard.key("tasks:x"))


def test_a_call_repeated_since_its_reply_was_lost_is_no_second_run(shard: Shard) -> None:
    """Even when the first run has ended by then: the repeat must not wipe its result."""
    shard.settle("ann.1", dead(shard.running("a")))
    assert shard.retry("a", "call-1") == "ok a"
    shard.settle("ann.1", complete(shard.take()))
    before = shard.dump()
    assert shard.retry("a", "call-1") == "ok a"
    assert shard.dump() == before
    assert shard.retry("a", "call-2") == "ok a"
    assert shard.record("a")["state"] == "queued"


def test_a_task_whose_letter_could_not_be_kept_runs_again(shard: Shard) -> None:
    shard.redis.set(shard.key("dead:x"), "mine")
    one = shard.running("a")
    assert shard.settle("ann.1", dead(one)) == ["ok"]
    assert shard.retry("a") == "ok a"
    assert shard.state("a") == "queued"
    shard.redis.delete(shard.key("dead:x"))
