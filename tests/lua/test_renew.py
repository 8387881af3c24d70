"""task_renew: what is held stays held; what is pending and unknown to its agent is handed back."""

from __future__ import annotations

import dataclasses

from tests.lua.shard import LEASE, Shard, ack, complete, fail, release


def idle(shard: Shard, stream: str = "tasks:x") -> list[int]:
    found = shard.redis.xpending_range(shard.key(stream), "agents", "-", "+", 100)
    return [one["time_since_delivered"] for one in found]


def test_a_renewed_entry_is_young_again_and_counts_no_delivery(shard: Shard) -> None:
    one = shard.running("a")
    shard.age("ann.1")
    assert shard.renew("ann.1", [one]) == ([], [], 0)
    assert max(idle(shard)) < LEASE
    (pending,) = shard.redis.xpending_range(shard.key("tasks:x"), "agents", "-", "+", 10)
    assert pending["times_delivered"] == 1


def test_what_is_young_is_no_stray(shard: Shard) -> None:
    shard.running("a")
    before = shard.dump()
    assert shard.renew("ann.1", []) == ([], [], 0)
    assert shard.dump() == before


def test_a_task_that_another_took_over_is_lost_and_stays_with_the_other(shard: Shard) -> None:
    one = shard.running("a", "ann.1")
    shard.crash("ann.1")
    shard.take("bob.2", orphans=[("tasks:x", "ann.1")])
    before = shard.dump()
    assert shard.renew("ann.1", [one]) == (["a 1"], [], 0)
    assert shard.dump() == before


def test_what_is_lost(shard: Shard) -> None:
    one = shard.running("a")
    assert shard.renew("ann.1", [dataclasses.replace(one, attempt=2)])[0] == ["a 2"]
    shard.settle("ann.1", complete(one))
    assert shard.renew("ann.1", [one])[0] == ["a 1"]
    shard.redis.delete(shard.key("task:a"))
    assert shard.renew("ann.1", [one])[0] == ["a 1"]


def test_a_task_that_is_to_be_cancelled_is_told(shard: Shard) -> None:
    one = shard.running("a")
    shard.cancel("a")
    assert shard.renew("ann.1", [one]) == ([], ["a"], 0)


def test_a_claim_whose_reply_was_lost_is_handed_back(shard: Shard) -> None:
    one = shard.running("a", extra={"header.tenant": "acme"})
    shard.age("ann.1")
    assert shard.renew("ann.1", []) == ([], [], 1)
    record = shard.record("a")
    assert record["state"] == "queued"
    assert record["entry"] != one.entry
    assert shard.pending() == {}
    two = shard.take("bob.2")
    assert (two.attempt, two.failures, two.deaths, two.fields["tenant"]) == (2, 0, 0, "acme")
    assert shard.settle("ann.1", complete(one)) == ["stale"]
    assert len(shard.events("task.strays_handed_back")) == 1


def test_a_read_whose_reply_was_lost_is_handed_back(shard: Shard) -> None:
    shard.new("a")
    shard.open()
    shard.read("ann.1")
    shard.age("ann.1")
    assert shard.renew("ann.1", []) == ([], [], 1)
    assert shard.take("bob.2").attempt == 1


def test_a_raw_task_keeps_its_id_when_it_is_handed_back(shard: Shard) -> None:
    shard.raw(payload="{}", tenant="acme")
    shard.open()
    one = shard.take("ann.1")
    shard.age("ann.1")
    assert shard.renew("ann.1", [])[2] == 1
    two = shard.take("bob.2")
    assert (two.id, two.attempt, two.fields["tenant"]) == (one.id, 2, "acme")


def test_a_raw_entry_with_a_bad_id_keeps_the_id_that_it_got(shard: Shard) -> None:
    shard.raw(id="a b", payload="{}")
    shard.open()
    one = shard.take("ann.1")
    shard.age("ann.1")
    shard.renew("ann.1", [])
    assert shard.take("bob.2").id == one.id


def test_a_raw_entry_that_was_only_read_is_added_again(shard: Shard) -> None:
    shard.raw(payload="{}", tenant="acme")
    shard.open()
    shard.read("ann.1")
    shard.age("ann.1")
    assert shard.renew("ann.1", [])[2] == 1
    assert shard.take("bob.2").fields["tenant"] == "acme"


def test_a_stray_that_is_settled_already_is_only_taken_away(shard: Shard) -> None:
    one = shard.running("a")
    shard.settle("ann.1", complete(one))
    shard.raw(id="a", payload="{}")
    shard.read("ann.1")
    shard.age("ann.1")
    before = shard.record("a")
    assert shard.renew("ann.1", [])[2] == 1
    assert shard.record("a") == before
    assert shard.entries() == {}


def test_a_second_entry_of_a_queued_task_is_only_taken_away(shard: Shard) -> None:
    shard.open()
    shard.raw(id="a", payload="{}")
    shard.read("ann.1")
    shard.redis.hset(shard.key("task:a"), mapping={"state": "queued", "entry": "9-9", "capability": "x"})
    shard.age("ann.1")
    shard.renew("ann.1", [])
    assert (shard.record("a")["entry"], shard.entries()) == ("9-9", {})


def test_a_message_whose_delivery_was_lost_comes_again(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m", type="tell", payload="1")
    shard.take(ann)
    shard.age(ann, f"mail:{ann}")
    assert shard.renew(ann, []) == ([], [], 1)
    assert shard.take(ann).fields["id"] == "m"


def test_a_held_message_is_renewed(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m", type="tell", payload="1")
    one = shard.take(ann)
    shard.age(ann, f"mail:{ann}")
    assert shard.renew(ann, [one]) == ([], [], 0)
    assert max(idle(shard, f"mail:{ann}")) < LEASE
    assert shard.settle(ann, ack(one)) == ["ok"]


def test_streams_that_went_away_do_not_stop_the_renewal_of_others(shard: Shard) -> None:
    ann = shard.join("ann")
    shard.send(ann, id="m", type="tell", payload="1")
    message = shard.take(ann)
    shard.new("b", capability="y")
    streams = [*shard.streams_of(ann), "tasks:y"]
    other = shard.take(ann, streams=streams)
    task = shard.running("a", ann)
    shard.age(ann)
    shard.redis.delete(shard.key(f"mail:{ann}"), shard.key("tasks:y"))
    assert shard.renew(ann, [message, other, task], streams=streams) == ([], [], 0)
    assert max(idle(shard)) < LEASE


def test_a_record_of_another_type_does_not_stop_the_renewal_of_others(shard: Shard) -> None:
    one = shard.running("a")
    two = shard.running("b")
    shard.redis.delete(shard.key("task:a"))
    shard.redis.set(shard.key("task:a"), "mine")
    shard.age("ann.1")
    assert shard.renew("ann.1", [one, two]) == (["a 1"], [], 0)
    assert shard.renew("ann.1", [two])[2] == 1, "given up, it is a stray"
    shard.claim("bob.2")
    assert [letter["reason"] for letter in shard.letters()] == ["record_unusable"]
    shard.redis.delete(shard.key("task:a"))


def test_a_stray_with_thousands_of_fields_stops_nobody(shard: Shard) -> None:
    shard.open()
    shard.redis.xadd(shard.key("tasks:x"), {f"f{n}": "1" for n in range(5000)})
    shard.read("ann.1")
    shard.age("ann.1")
    assert shard.renew("ann.1", [])[2] == 1
    assert shard.entries() == {}
    assert len(shard.letters("inbox")) == 1


def test_a_released_or_failed_task_is_not_renewed(shard: Shard) -> None:
    one, two = shard.running("a"), shard.running("b")
    shard.settle("ann.1", release(one), fail(two))
    assert shard.renew("ann.1", [one, two])[0] == ["a", "b"] or shard.state("a") == "queued"


def test_many_held(shard: Shard) -> None:
    held = [shard.running(f"t{n}") for n in range(600)]
    shard.age("ann.1")
    assert shard.renew("ann.1", held) == ([], [], 0)
    assert max(idle(shard)[:100]) < LEASE


def test_at_most_a_hundred_strays_at_once(shard: Shard) -> None:
    for n in range(120):
        shard.running(f"t{n}")
    shard.age("ann.1")
    assert shard.renew("ann.1", [])[2] == 100
    assert shard.renew("ann.1", [])[2] == 20
    assert len(shard.claim("bob.2", 200)) == 120


def test_nobody_renews_for_another(shard: Shard) -> None:
    one = shard.running("a", "ann.1")
    before = shard.dump()
    lost, cancel, strays = shard.renew("bob.2", [one])
    assert (len(lost), cancel, strays) == (1, [], 0)
    assert shard.dump() == before
