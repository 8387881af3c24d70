"""due_fire: delayed tasks go to the tail of their streams when their time has come, once."""

from __future__ import annotations

from tests.lua.shard import New, Shard, fail


def test_what_is_due_is_queued(shard: Shard) -> None:
    shard.new("a", when="1", priority="high", extra={"header.tenant": "acme", "deadline": "+60000"})
    assert shard.fire() == (1, "")
    ((entry, fields),) = shard.entries("tasks:x:high").items()
    record = shard.record("a")
    assert (record["state"], record["entry"], fields["tenant"]) == ("queued", entry, "acme")
    assert fields["deadline"] == record["deadline"]
    assert "due" not in record
    assert shard.due() == {}


def test_what_is_not_due_waits(shard: Shard) -> None:
    shard.new("a", when="+5000")
    before = shard.dump()
    count, wait = shard.fire()
    assert count == 0
    assert 4000 < int(wait) <= 5000
    assert shard.dump() == before


def test_the_next_one_is_told_though_it_is_late(shard: Shard) -> None:
    shard.enqueue(New("a", when="1"), New("b", when="2"))
    assert shard.fire(limit=1) == (1, "0")
    assert shard.fire(limit=1) == (1, "")


def test_nothing_is_fired_twice(shard: Shard) -> None:
    shard.new("a", when="1")
    shard.fire()
    assert shard.fire() == (0, "")
    assert len(shard.entries()) == 1


def test_in_the_order_of_their_times(shard: Shard) -> None:
    shard.enqueue(New("late", when="30"), New("early", when="10"), New("middle", when="20"))
    shard.fire()
    assert [fields["id"] for fields in shard.entries().values()] == ["early", "middle", "late"]


def test_a_thousand_in_pieces(shard: Shard) -> None:
    shard.enqueue(*(New(f"t{n}", when="1") for n in range(1000)))
    assert [shard.fire()[0] for _ in range(3)] == [500, 500, 0]
    assert len(shard.entries()) == 1000


def test_what_is_no_delayed_task_any_more_only_leaves_the_set(shard: Shard) -> None:
    shard.running("running")
    shard.redis.set(shard.key("task:odd"), "mine")
    for id in ("running", "gone", "odd"):
        shard.redis.zadd(shard.key("due"), {f"task:{id}": 1})
    shard.redis.zadd(shard.key("due"), {"nonsense": 1})
    shard.new("a", when="2")
    assert shard.fire() == (1, "")
    assert shard.state("running") == "running"
    assert shard.due() == {}
    shard.redis.delete(shard.key("task:odd"))


def test_a_stream_of_another_type_does_not_stop_the_timers_of_others(shard: Shard) -> None:
    shard.enqueue(New("a", when="1", capability="y"), New("b", when="2"))
    shard.redis.set(shard.key("tasks:y"), "mine")
    assert shard.fire() == (1, "")
    assert (shard.state("a"), shard.state("b")) == ("dead", "queued")
    assert [letter["reason"] for letter in shard.letters("y")] == ["stream_unusable"]
    shard.redis.delete(shard.key("tasks:y"))


def test_the_stream_is_made_with_its_group_and_listed(shard: Shard) -> None:
    shard.new("a", when="1")
    shard.redis.delete(shard.key("caps"))
    shard.fire()
    assert shard.redis.smembers(shard.key("caps")) == {"x"}
    assert len(shard.read("ann.1")) == 1


def test_a_retry_past_its_deadline_expires_when_it_is_claimed(shard: Shard) -> None:
    one = shard.running("a", extra={"deadline": "+60000"})
    shard.settle("ann.1", fail(one))
    shard.redis.hset(shard.key("task:a"), "deadline", "1")
    shard.fire(ahead=6000)
    assert shard.claim() == []
    assert shard.state("a") == "expired"
