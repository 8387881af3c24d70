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
        shard.key("tasks:x"), shard.key("inbox:ann.1"), shard.key("mail:ann.1"),
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
    assert (one.stream, one.id, one.attempt, one.fields["type"]) == (f"mail:{ann}", "", 0, "hello")
    assert shard.record("m1") == {}
    assert shard.settle(ann, ack(one)) == ["ok"]
    assert shard.entries(f"mail:{ann}") == {}


def test_what_is_in_the_mail_is_a_message_whatever_it_says(shard: Shard) -> None:
    ann = shard.join("ann")
    assert shard.claim(ann) == [], "makes the groups"
    shard.raw(f"mail:{ann}", payload="1")
    one = shard.take(ann)
    assert (one.id, one.fields) == ("", {"payload": "1"})
    assert shard.settle(ann, ack(one)) == ["ok"]


def test_a_message_that_came_by_the_inbox_is_one_too(shard: Shard) -> None:
    assert shard.claim("ann.1") == [], "makes the groups"
    shard.raw("inbox:ann.1", type="hello", payload="1")
    one = shard.take("ann.1")
    assert (one.id, one.fields["type"]) == ("", "hello")


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


# -- settled before


def test_released_and_failed_tasks_are_claimed_by_their_new_entry_only(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", release(one))
    two = shard.take("bob.2")
    assert two.entry != one.entry
    shard.settle("bob.2", dead(two))
    assert shard.claim("bob.2") == []
