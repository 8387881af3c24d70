"""task_claim, what dead agents left: taken over with the death counted, poison at the third, and never from the living."""

from __future__ import annotations

from tests.lua.shard import LEASE, New, Shard, complete, dead


def test_an_entry_that_was_read_and_never_begun_starts_without_a_death(shard: Shard) -> None:
    entry = shard.new("a")
    shard.open()
    shard.read("ann.1")
    shard.crash("ann.1")
    one = shard.take("bob.2", orphans=[("tasks:x", "ann.1")])
    assert (one.entry, one.attempt, one.deaths) == (entry, 1, 0)
    assert shard.pending() == {entry: "bob.2"}


def test_a_task_of_a_dead_agent_is_taken_over_and_its_death_is_counted(shard: Shard) -> None:
    first = shard.running("a", "ann.1")
    shard.crash("ann.1")
    second = shard.take("bob.2", orphans=[("tasks:x", "ann.1")])
    assert (second.entry, second.attempt, second.deaths) == (first.entry, 2, 1)
    record = shard.record("a")
    assert (record["agent"], record["attempt"], record["deaths"]) == ("bob.2", "2", "1")
    assert shard.settle("ann.1", complete(first)) == ["stale"]
    assert shard.settle("bob.2", complete(second)) == ["ok"]


def test_an_agent_that_renewed_within_its_lease_keeps_what_it_has(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.age("ann.1", ms=LEASE - 2000)
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    assert shard.record("a")["agent"] == "ann.1"


def test_nothing_is_taken_over_during_the_grace_after_a_stall(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.crash("ann.1")
    shard.redis.hset(shard.key("sweep"), "grace", str(shard.now() + 5000))
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    shard.redis.hset(shard.key("sweep"), "grace", str(shard.now()))
    assert shard.take("bob.2", orphans=[("tasks:x", "ann.1")]).id == "a"


def test_the_third_death_makes_a_task_poison(shard: Shard) -> None:
    shard.new("a", payload='{"n":1}', extra={"waiters": "cli"})
    last = shard.take("a.1")
    for number in (1, 2):
        shard.crash(f"a.{number}")
        last = shard.take(f"a.{number + 1}", orphans=[("tasks:x", f"a.{number}")])
        assert last.deaths == number
    shard.crash("a.3")
    assert shard.claim("a.4", orphans=[("tasks:x", "a.3")]) == []
    record = shard.record("a")
    assert (record["state"], record["reason"], record["deaths"], record["attempt"]) == ("dead", "poison", "3", "3")
    assert shard.ttl("task:a") > 0
    (letter,) = shard.letters()
    assert (letter["id"], letter["payload"], letter["reason"], letter["attempts"], letter["agent"]) == (
        "a", '{"n":1}', "poison", "3", "a.3",
    )  # fmt: skip
    assert shard.entries() == {} == shard.pending()
    assert [reply["state"] for reply in shard.replies("cli")] == ["dead"]
    assert shard.settle("a.3", dead(last)) == ["stale"], "what the last one says when it comes back was not recorded"


def test_a_cancelled_task_whose_agent_died_does_not_run_again(shard: Shard) -> None:
    shard.running("a", "ann.1", extra={"waiters": "cli"})
    assert shard.cancel("a", by="joe") == ["running ann.1"]
    shard.crash("ann.1")
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    assert (shard.state("a"), shard.record("a")["error"]) == ("cancelled", "cancelled by joe")
    assert shard.ttl("task:a") > 0
    assert shard.entries() == {}
    assert [reply["state"] for reply in shard.replies("cli")] == ["cancelled"]


def test_an_orphan_past_its_deadline_expires(shard: Shard) -> None:
    one = shard.running("a", "ann.1", extra={"deadline": "+60000"})
    shard.redis.xdel(shard.key("tasks:x"), one.entry)
    assert shard.record("a")["state"] == "running"
    shard.redis.delete(shard.key("tasks:x"), shard.key("task:a"))
    shard.open()
    shard.raw(id="b", payload="{}", deadline=str(shard.now() + 150))
    shard.take("ann.1")
    shard.crash("ann.1")
    while shard.now() < int(shard.record("b")["deadline"]):
        pass
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    assert shard.state("b") == "expired"


def test_an_entry_that_somebody_deleted_is_an_alarm_and_no_ghost(shard: Shard) -> None:
    one = shard.running("a", "ann.1")
    shard.crash("ann.1")
    shard.redis.xdel(shard.key("tasks:x"), one.entry)
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    assert [event["entry"] for event in shard.events("stream.entry_lost")] == [one.entry]
    assert shard.pending() == {}


def test_orphans_of_a_stream_that_went_away_do_not_stop_the_claim(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.crash("ann.1")
    shard.redis.delete(shard.key("tasks:x"))
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    shard.new("b")
    assert shard.take("bob.2", orphans=[("tasks:x", "ann.1")]).id == "b"


def test_orphans_come_first_and_count_is_the_most(shard: Shard) -> None:
    shard.enqueue(*(New(f"t{n}") for n in range(5)))
    shard.claim("ann.1", count=3)
    shard.crash("ann.1")
    assert [one.id for one in shard.claim("bob.2", 2, orphans=[("tasks:x", "ann.1")])] == ["t0", "t1"]
    assert [one.id for one in shard.claim("bob.2", 2, orphans=[("tasks:x", "ann.1")])] == ["t2", "t3"]


def test_what_dead_agents_left_of_thousands_is_taken_away_in_one_claim(shard: Shard) -> None:
    """More entries to be dropped than Lua can pass as arguments of one call."""
    shard.open()
    with shard.redis.pipeline(transaction=False) as pipe:
        for _ in range(9000):
            pipe.xadd(shard.key("tasks:x"), {"id": "a", "payload": "{}"})
        pipe.execute()
    shard.new("a")
    shard.redis.xtrim(shard.key("tasks:x"), maxlen=9001)
    consumers = [f"d.{n}" for n in range(9)]
    for consumer in consumers:
        shard.read(consumer, count=1000)
        shard.age(consumer)
    shard.claim("bob.2", 1000, orphans=[("tasks:x", consumer) for consumer in consumers])
    assert len(shard.entries()) <= 1


def test_a_zombie_is_not_told_that_its_outcome_counts(shard: Shard) -> None:
    """The task was cancelled when its agent seemed dead: nothing of what the agent brings then is recorded."""
    one = shard.running("a", "ann.1")
    shard.cancel("a")
    shard.crash("ann.1")
    shard.claim("bob.2", orphans=[("tasks:x", "ann.1")])
    before = shard.dump()
    assert shard.settle("ann.1", complete(one)) == ["stale"]
    assert shard.settle("ann.1", dead(one)) == ["stale"]
    assert shard.dump() == before


def test_the_work_of_one_that_is_known_to_be_gone_need_not_be_idle(shard: Shard) -> None:
    shard.running("a", "ann.1")
    assert shard.claim("bob.2", orphans=[("tasks:x", "ann.1")]) == []
    assert shard.take("bob.2", orphans=[("tasks:x", "ann.1")], vanished=["ann.1"]).attempt == 2
