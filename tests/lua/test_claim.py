"""task_claim: every entry becomes a running task of the one who asked, with its attempt raised, or is taken away."""

from __future__ import annotations

import pytest

from tests.lua.shard import LEASE, New, Shard, ack, complete, dead, fail, release


def test_a_new_entry_becomes_a_running_task(shard: Shard) -> None:
    entry = shard.new("a", payload='{"n":1}')
    before = shard.record("a")
    one = shard.take("ann.1")
    assert (one.stream, one.entry, one.id, one.attempt, one.failures, one.deaths) == ("tasks:x", entry, "a", 1, 0, 0)
    assert one.fields["payload"] == '{"n":1}'
    record = shard.record("a")
    started = record.pop("started_at")
    assert record == before | {"state": "running", "agent": "ann.1", "attempt": "1"}
    assert started >= before["enqueued_at"]
    assert shard.ttl("task:a") == -1
    assert shard.pending() == {entry: "ann.1"}
    assert list(shard.entries()) == [entry], "an entry stays until its task is settled"


def test_nothing_is_claimed_twice(shard: Shard) -> None:
    shard.running("a")
    assert shard.claim("ann.1") == []
    assert shard.claim("bob.2") == []


def test_count_is_the_most_and_the_streams_are_served_in_their_order(shard: Shard) -> None:
    shard.enqueue(*(New(f"low{n}") for n in range(3)), *(New(f"high{n}", priority="high") for n in range(3)))
    streams = ["inbox:ann.1", "tasks:x:high", "tasks:x"]
    assert [one.id for one in shard.claim(count=2, streams=streams)] == ["high0", "high1"]
    assert [one.id for one in shard.claim(count=2, streams=streams)] == ["high2", "low0"]
    assert [one.id for one in shard.claim(count=9, streams=streams)] == ["low1", "low2"]


def test_a_thousand_at_once(shard: Shard) -> None:
    shard.enqueue(*(New(f"t{n}") for n in range(1000)))
    items = shard.claim(count=1000)
    assert [one.id for one in items] == [f"t{n}" for n in range(1000)]
    assert shard.settle("ann.1", *(complete(one) for one in items)) == ["ok"] * 1000
    assert shard.entries() == {} == shard.pending()


def test_a_stream_without_group_gets_one_at_its_first_entry_and_an_event(shard: Shard) -> None:
    shard.raw(payload="{}")
    assert shard.claim() == []
    assert {event["stream"] for event in shard.events("stream.group_recreated")} == {
        shard.key("tasks:x"), shard.key("inbox:ann.1"),
    }  # fmt: skip
    assert shard.take().fields["payload"] == "{}"


def test_a_stream_that_went_away_is_made_anew_and_listed_again(shard: Shard) -> None:
    """After FLUSHALL: what lists the streams must come back with them, else nobody looks into them."""
    shard.claim("ann.1")
    assert shard.redis.smembers(shard.key("caps")) == {"x"}
    assert shard.redis.zrange(shard.key("inboxes"), 0, -1) == ["ann.1"]


def test_an_entry_that_the_agent_has_read_itself(shard: Shard) -> None:
    entry = shard.new("a")
    shard.open()
    assert shard.read() == [entry]
    assert shard.state("a") == "queued"
    one = shard.take(given=[("tasks:x", entry)])
    assert (one.id, one.attempt) == ("a", 1)
    assert shard.state("a") == "running"


def test_given_entries_of_others_are_left_alone(shard: Shard) -> None:
    entry = shard.new("a")
    shard.open()
    shard.read("bob.2")
    before = shard.dump()
    assert shard.claim("ann.1", given=[("tasks:x", entry)]) == []
    assert shard.dump() == before


def test_given_entries_that_were_settled_or_cancelled_meanwhile_are_nothing(shard: Shard) -> None:
    entry = shard.new("a")
    shard.open()
    shard.read()
    assert shard.cancel("a") == ["ok"]
    before = shard.dump()
    assert shard.claim(given=[("tasks:x", entry)]) == []
    assert shard.dump() == before


def test_given_entries_of_a_stream_that_went_away_do_not_stop_the_claim(shard: Shard) -> None:
    entry = shard.new("a")
    shard.open()
    shard.read()
    shard.redis.delete(shard.key("tasks:x"))
    assert shard.claim(given=[("tasks:x", entry)]) == []
    assert "stream.group_recreated" in {event["type"] for event in shard.events()}


def test_a_claim_asked_again_since_its_reply_was_lost_loses_nothing(shard: Shard) -> None:
    """The same call again meets the task that it has started itself: the entry must stay."""
    entry = shard.new("a")
    shard.open()
    shard.read()
    shard.claim(given=[("tasks:x", entry)])  # its reply is lost
    assert shard.claim(given=[("tasks:x", entry)]) == []
    assert shard.pending() == {entry: "ann.1"}
    assert shard.skipped == 0
    shard.age("ann.1")
    assert shard.renew()[2] == 1
    again = shard.take("bob.2")
    assert (again.id, again.attempt) == ("a", 2)


def test_the_entry_of_a_running_task_that_is_delivered_again_stays_with_its_owner(shard: Shard) -> None:
    """A group that was deleted and made anew hands out everything once more."""
    one = shard.running("a", "ann.1")
    shard.redis.xgroup_destroy(shard.key("tasks:x"), "agents")
    assert shard.claim("bob.2") == []
    assert shard.claim("bob.2") == []
    assert list(shard.entries()) == [one.entry]
    shard.renew("ann.1", [one])
    assert shard.pending() == {one.entry: "ann.1"}
    assert shard.settle("ann.1", complete(one)) == ["ok"]
    assert shard.entries() == {}


def test_a_task_whose_owner_died_while_its_entry_was_delivered_to_another_runs_again(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.redis.xgroup_destroy(shard.key("tasks:x"), "agents")
    shard.claim("bob.2")
    shard.claim("bob.2")
    shard.age("bob.2")
    assert shard.renew("bob.2")[2] == 1
    assert shard.take("bob.2").attempt == 2


# -- what nobody wants


def test_a_second_entry_of_one_id_is_taken_away(shard: Shard) -> None:
    shard.new("a")
    shard.raw(id="a", payload='{"other":1}')
    assert [one.fields["payload"] for one in shard.claim()] == ["{}"]
    assert shard.skipped == 1
    assert len(shard.entries()) == 1


def test_an_entry_of_a_finished_task_is_taken_away(shard: Shard) -> None:
    shard.settle("ann.1", complete(shard.running("a")))
    before = shard.record("a")
    shard.raw(id="a", payload="{}")
    assert shard.claim() == []
    assert shard.skipped == 1
    assert shard.entries() == {}
    assert shard.record("a") == before


def test_an_entry_of_a_delayed_task_is_taken_away(shard: Shard) -> None:
    shard.new("a", when="+5000")
    shard.open()
    shard.raw(id="a", payload="{}")
    assert shard.claim() == []
    assert (shard.state("a"), shard.entries()) == ("delayed", {})


def test_a_task_past_its_deadline_expires(shard: Shard) -> None:
    shard.new("a", extra={"deadline": str(shard.now()), "waiters": "cli"})
    assert shard.claim() == []
    record = shard.record("a")
    assert record["state"] == "expired"
    assert record["finished_at"]
    assert "attempt" not in record
    assert shard.ttl("task:a") > 0
    assert shard.entries() == {} == shard.pending()
    assert [reply["state"] for reply in shard.replies("cli")] == ["expired"]


def test_a_task_before_its_deadline_runs(shard: Shard) -> None:
    shard.new("a", extra={"deadline": "+60000"})
    one = shard.take()
    assert int(one.fields["deadline"]) > shard.now()


def test_an_expired_one_in_the_middle_leaves_the_others_right(shard: Shard) -> None:
    shard.enqueue(New("a"), New("b", extra={"deadline": "1"}), New("c"))
    assert [one.id for one in shard.claim()] == ["a", "c"]
    assert (shard.skipped, len(shard.entries())) == (1, 2)


# -- raw entries


def test_a_bare_xadd_is_a_task_and_its_id_comes_from_stream_and_entry(shard: Shard) -> None:
    entry = shard.raw(payload='{"text":"hi"}')
    shard.open()
    one = shard.take()
    assert one.id == f"{shard.raw_word('tasks:x')}-{entry}"
    record = shard.record(one.id)
    assert record.pop("enqueued_at")
    assert record.pop("started_at")
    assert record == {
        "state": "running", "capability": "x", "payload": '{"text":"hi"}', "entry": entry, "agent": "ann.1", "attempt": "1",
    }  # fmt: skip


def test_a_bare_xadd_without_payload_is_a_task_without_arguments(shard: Shard) -> None:
    shard.raw(hello="world")
    shard.open()
    assert shard.record(shard.take().id)["payload"] == "{}"


def test_a_bare_xadd_may_name_its_id_and_its_deadline(shard: Shard) -> None:
    shard.raw(id="mine", payload="{}", deadline="99999999999999")
    shard.open()
    assert shard.take().id == "mine"
    assert shard.record("mine")["deadline"] == "99999999999999"


@pytest.mark.parametrize("bad", ["", "a b", "{a}", "a" * 129, "ä"])
def test_an_id_that_is_not_usable_is_replaced_and_the_entry_keeps_what_was_given(shard: Shard, bad: str) -> None:
    entry = shard.raw(id=bad, payload="{}")
    shard.open()
    one = shard.take()
    assert one.id == f"{shard.raw_word('tasks:x')}-{entry}"
    assert one.fields["id"] == bad


def test_two_lanes_that_mint_one_entry_id_make_two_tasks(shard: Shard) -> None:
    shard.raw("tasks:x", "5-0", payload="1")
    shard.raw("tasks:x:high", "5-0", payload="2")
    streams = ["inbox:ann.1", "tasks:x:high", "tasks:x"]
    shard.claim(streams=streams)
    items = shard.claim(streams=streams)
    assert sorted(one.fields["payload"] for one in items) == ["1", "2"]
    assert len({one.id for one in items}) == 2


def test_the_unknown_fields_of_a_bare_xadd_survive_a_retry(shard: Shard) -> None:
    shard.raw(payload="{}", tenant="acme", correlation="c-1")
    shard.open()
    one = shard.take()
    shard.settle("ann.1", fail(one))
    shard.fire(ahead=LEASE)
    fields = shard.take().fields
    assert (fields["tenant"], fields["correlation"]) == ("acme", "c-1")


def test_a_bare_xadd_with_thousands_of_fields_stops_nobody(shard: Shard) -> None:
    shard.open()
    shard.redis.xadd(shard.key("tasks:x"), {f"f{n}": "1" for n in range(5000)})
    shard.new("a")
    items = shard.claim()
    assert "a" in [one.id for one in items]
    assert shard.read("bob.2") == []


def test_the_key_of_the_record_holds_another_type(shard: Shard) -> None:
    shard.redis.set(shard.key("task:a"), "mine")
    shard.raw(id="a", payload='{"n":1}')
    shard.new("b")
    shard.open()
    assert [one.id for one in shard.claim()] == ["b"] or [one.id for one in shard.claim()] == ["b"]
    (letter,) = shard.letters()
    assert (letter["id"], letter["reason"], letter["payload"]) == ("a", "record_unusable", '{"n":1}')
    assert shard.redis.get(shard.key("task:a")) == "mine"
    assert len(shard.entries()) == 1
    shard.redis.delete(shard.key("task:a"))


def test_a_stream_of_another_type_stops_nobody(shard: Shard) -> None:
    shard.redis.set(shard.key("tasks:y"), "mine")
    shard.new("a")
    shard.open()
    items = shard.claim(streams=["inbox:ann.1", "tasks:x", "tasks:y"])
    assert [one.id for one in items] == ["a"]
    shard.redis.delete(shard.key("tasks:y"))


# -- the inbox


def test_messages_come_as_they_are_and_have_no_record(shard: Shard) -> None:
    ann = shard.join("ann")
    assert shard.send(ann, id="m1", type="hello", payload="1") == "ok"
    one = shard.take(ann)
    assert (one.stream, one.id, one.attempt, one.fields["type"]) == (f"inbox:{ann}", "", 0, "hello")
    assert shard.record("m1") == {}
    assert shard.settle(ann, ack(one)) == ["ok"]
    assert shard.entries(f"inbox:{ann}") == {}


def test_a_task_for_one_agent_says_its_capability(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    assert shard.claim("bob.2") == []
    one = shard.take("ann.1")
    assert (one.id, one.fields["capability"], shard.record("a")["to"]) == ("a", "x", "ann.1")


def test_two_inboxes_that_mint_one_entry_id_make_two_tasks(shard: Shard) -> None:
    for agent in ("ann.1", "bob.2"):
        shard.raw(f"inbox:{agent}", "5-0", payload="{}", capability="x")
        shard.open(agent)
    assert shard.take("ann.1").id != shard.take("bob.2").id


# -- orphans of dead agents


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


# -- settled before


def test_released_and_failed_tasks_are_claimed_by_their_new_entry_only(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", release(one))
    two = shard.take("bob.2")
    assert two.entry != one.entry
    shard.settle("bob.2", dead(two))
    assert shard.claim("bob.2") == []


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
