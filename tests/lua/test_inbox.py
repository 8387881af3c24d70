"""message_send, and inbox_drain: what becomes of messages and tasks for an agent that is gone."""

from __future__ import annotations

import pytest

from tests.lua.shard import LEASE, New, Shard, complete, fail


def test_a_message_needs_a_live_agent(shard: Shard) -> None:
    assert shard.send("ann.1", id="m", type="tell", payload="1") == "missing"
    assert shard.dump() == {}


def test_a_message_is_an_entry_and_makes_the_inbox_known(shard: Shard) -> None:
    ann = shard.join("ann")
    assert shard.send(ann, id="m", type="tell", payload="1", deadline="+5000") == "ok"
    ((_, fields),) = shard.entries(f"mail:{ann}").items()
    assert 4000 < int(fields.pop("deadline")) - shard.now() <= 5000
    assert fields.pop("at")
    assert fields == {"id": "m", "type": "tell", "payload": "1"}
    assert shard.redis.zrange(shard.key("inboxes"), 0, -1) == [ann]


def test_the_inbox_of_a_live_agent_is_not_drained(shard: Shard) -> None:
    ann = shard.join("ann", "x")
    shard.new("a", to=ann)
    before = shard.dump()
    assert shard.drain(ann, "x") == ("alive", 0, 0)
    assert shard.dump() == before


def test_a_queued_task_moves_to_the_others(shard: Shard) -> None:
    shard.new("a", to="ann.1", priority="high", extra={"header.tenant": "acme"})
    assert shard.drain("ann.1", "x") == ("ok", 1, 0)
    assert "to" not in shard.record("a")
    ((entry, fields),) = shard.entries("tasks:x:high").items()
    assert (shard.record("a")["entry"], fields["tenant"]) == (entry, "acme")
    assert shard.redis.exists(shard.key("inbox:ann.1"), shard.key("inboxes")) == 0
    one = shard.take("bob.2", streams=["inbox:bob.2", "tasks:x:high"])
    assert (one.attempt, one.deaths) == (1, 0)


def test_a_running_task_moves_with_its_death_counted_and_its_old_owner_is_fenced_off(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    one = shard.take("ann.1")
    assert shard.drain("ann.1", "x") == ("ok", 1, 0)
    assert shard.settle("ann.1", complete(one)) == ["stale"]
    two = shard.take("bob.2")
    assert (two.attempt, two.deaths) == (2, 1)


def test_a_task_that_nobody_else_can_do_is_a_dead_letter(shard: Shard) -> None:
    shard.new("a", to="ann.1", extra={"waiters": "cli"})
    assert shard.drain("ann.1", "y") == ("ok", 0, 1)
    assert (shard.state("a"), shard.record("a")["reason"]) == ("dead", "agent_died")
    assert [letter["id"] for letter in shard.letters()] == ["a"]
    assert [reply["state"] for reply in shard.replies("cli")] == ["dead"]


def test_a_request_is_answered_died_and_a_message_is_a_letter(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m1", type="ask", payload="1", reply_to="cli")
    shard.send(ann, id="m2", type="tell", payload="2")
    shard.crash(ann)
    assert shard.drain(ann) == ("ok", 0, 1)
    assert [(reply["id"], reply["state"]) for reply in shard.replies("cli")] == [("m1", "died")]
    (letter,) = shard.letters("inbox")
    assert (letter["id"], letter["payload"], letter["reason"]) == ("m2", "2", "message_undelivered")


def test_twice_is_once(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    shard.drain("ann.1", "x")
    before = shard.dump()
    assert shard.drain("ann.1", "x") == ("ok", 0, 0)
    assert shard.dump() == before


def test_a_long_inbox_is_drained_in_pieces(shard: Shard) -> None:
    shard.enqueue(*(New(f"t{n}", to="ann.1") for n in range(1000)))
    assert shard.drain("ann.1", "x", limit=600) == ("more", 600, 0)
    assert shard.drain("ann.1", "x", limit=600) == ("ok", 400, 0)
    assert len(shard.entries()) == 1000


def test_a_cancelled_task_has_left_the_inbox(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    shard.open("ann.1")
    shard.read("ann.1", "inbox:ann.1")
    assert shard.cancel("a") == ["ok"]
    assert shard.drain("ann.1", "x") == ("ok", 0, 0)


@pytest.mark.parametrize("claimed", [False, True])
def test_a_raw_task_moves_under_the_id_that_it_has(shard: Shard, claimed: bool) -> None:
    entry = shard.raw("inbox:ann.1", payload='{"n":1}', capability="x", tenant="acme")
    shard.open("ann.1")
    id = f"{shard.raw_word('inbox:ann.1')}-{entry}"
    if claimed:
        assert shard.take("ann.1").id == id
    assert shard.drain("ann.1", "x") == ("ok", 1, 0)
    two = shard.take("bob.2")
    assert (two.id, two.fields["payload"], two.fields["tenant"]) == (id, '{"n":1}', "acme")


def test_what_nobody_understands_is_a_dead_letter(shard: Shard) -> None:
    shard.raw("inbox:ann.1", payload="{}")
    assert shard.drain("ann.1", "x") == ("ok", 0, 1)
    assert len(shard.letters("inbox")) == 1


def test_a_record_of_another_type_does_not_stop_the_drain(shard: Shard) -> None:
    shard.redis.set(shard.key("task:a"), "mine")
    shard.raw("inbox:ann.1", id="a", payload="{}", capability="x")
    shard.new("b", to="ann.1")
    assert shard.drain("ann.1", "x") == ("ok", 1, 1)
    assert [letter["reason"] for letter in shard.letters()] == ["record_unusable"]
    shard.redis.delete(shard.key("task:a"))


def test_an_inbox_of_another_type_is_forgotten(shard: Shard) -> None:
    shard.redis.set(shard.key("inbox:ann.1"), "mine")
    shard.redis.zadd(shard.key("inboxes"), {"ann.1": 1})
    assert shard.drain("ann.1", "x") == ("ok", 0, 0)
    assert set(shard.dump()) == {"inbox:ann.1"}
    shard.redis.delete(shard.key("inbox:ann.1"))


def test_a_retry_for_an_agent_that_died_meanwhile_moves_to_the_others(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    shard.settle("ann.1", fail(shard.take("ann.1")))
    assert shard.drain("ann.1", "x") == ("ok", 0, 0)
    assert shard.fire(ahead=LEASE) == (1, "")
    assert shard.sweep("bob.2")[1] == [], "its agent may just be starting"
    shard.redis.zadd(shard.key("inboxes"), {"ann.1": 1})
    assert shard.sweep("bob.2")[1] == ["ann.1"]
    assert shard.drain("ann.1", "x") == ("ok", 1, 0)
    assert shard.take("bob.2").failures == 1


def test_an_agent_that_comes_back_has_a_listed_inbox_again(shard: Shard) -> None:
    ann = shard.join("ann", "x")
    shard.open(ann)
    shard.crash(ann)
    shard.drain(ann, "x")
    assert shard.beat(ann, "x") == "back"
    shard.claim(ann)
    shard.new("a", to=ann)
    shard.crash(ann)
    shard.redis.zadd(shard.key("inboxes"), {ann: 1}, xx=True)
    assert shard.sweep()[1] == [ann]


def test_a_message_sent_again_since_its_reply_was_lost_is_one_message(shard: Shard) -> None:
    agent = shard.join("ann")
    shard.open(agent)
    for _ in range(2):
        assert shard.send(agent, id="m-1", type="note", payload="1") == "ok"
    assert len(shard.read(agent, f"mail:{agent}", count=10)) == 1
    assert 0 < shard.ttl("sent:m-1") <= 60_000


def test_the_third_death_of_a_task_from_an_inbox_makes_it_a_dead_letter(shard: Shard) -> None:
    shard.new("a", to="ann.1", extra={"waiters": "cli"})
    one = shard.take("ann.1")
    shard.redis.hset(shard.key("task:a"), "deaths", "2")
    assert shard.drain("ann.1", "x") == ("ok", 0, 1)
    assert (shard.state("a"), shard.record("a")["reason"], shard.record("a")["deaths"]) == ("dead", "poison", "3")
    assert [letter["id"] for letter in shard.letters()] == ["a"]
    assert [reply["state"] for reply in shard.replies("cli")] == ["dead"]
    assert shard.settle("ann.1", complete(one)) == ["stale"]


def test_what_waits_for_an_agent_that_was_chosen_may_be_handed_on_and_what_is_for_its_id_stays(shard: Shard) -> None:
    shard.new("strict", to="ann.1")
    shard.new("loose", to="ann.1", extra={"chosen": "1", "header.tenant": "acme"})
    bob = shard.join("bob", "x")
    shard.open(bob)
    (waits,) = shard.waiting("ann.1")
    entry, id, *rest = waits
    assert (id, rest) == ("loose", ["x", ""])
    assert shard.waiting("ann.1", patience=60_000) == [], "it has not waited for long"
    assert shard.hand_on("ann.1", entry, id, "nobody.9") == 0, "to nobody who has no inbox"
    strict = shard.record("strict")["entry"]
    assert shard.hand_on("ann.1", entry, id, bob, strict, "strict", bob) == 1
    assert shard.hand_on("ann.1", entry, id, bob) == 0, "twice is once"
    record = shard.record("loose")
    assert (record["to"], record["refused"], record["chosen"]) == (bob, "ann.1", "1")
    assert shard.record("strict")["to"] == "ann.1"
    one = shard.take(bob)
    assert (one.id, one.attempt, one.failures, one.fields["tenant"], one.fields["refused"]) == (
        "loose",
        1,
        0,
        "acme",
        "ann.1",
    )
    assert "chosen" not in one.fields
    assert list(shard.entries("inbox:ann.1")) == [strict]


def test_what_has_begun_is_not_handed_on(shard: Shard) -> None:
    shard.new("a", to="ann.1", extra={"chosen": "1"})
    (waits,) = shard.waiting("ann.1")
    shard.take("ann.1")
    assert shard.waiting("ann.1") == []
    assert shard.hand_on("ann.1", *waits[:2], "") == 0
    assert shard.state("a") == "running"


def test_the_second_time_it_is_for_everybody(shard: Shard) -> None:
    shard.new("a", to="ann.1", priority="high", extra={"chosen": "1", "refused": "bob.2"})
    (waits,) = shard.waiting("ann.1")
    assert waits[3] == "bob.2"
    assert shard.hand_on("ann.1", *waits[:2], "") == 1
    assert {"to", "chosen"} & shard.record("a").keys() == set()
    assert shard.record("a")["refused"] == "bob.2 ann.1"
    assert len(shard.entries("tasks:x:high")) == 1


def test_the_mail_of_an_agent_is_held_to_a_bound(shard: Shard) -> None:
    ann = shard.join("ann")

    def send(id: str) -> str:
        return str(shard.run("message_send", f"agent {ann}", 2, "", "", "id", id, "type", "note", "payload", "1"))

    assert [send("a"), send("b")] == ["ok", "ok"]
    word, length, waited = send("c").split()
    assert (word, length) == ("full", "2")
    assert 0 <= int(waited) < 5000
    assert send("a") == "ok", "what was sent before is not sent again"
    assert len(shard.entries(f"mail:{ann}")) == 2
