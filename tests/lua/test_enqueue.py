"""task_enqueue: record and entry, or record and due time; a known id changes nothing."""

from __future__ import annotations

import pytest

from streammesh.errors import MeshError
from tests.lua.shard import New, Shard, complete


def test_a_task_has_a_record_and_an_entry(shard: Shard) -> None:
    assert shard.enqueue(New("a", '{"n":1}')) == ["ok"]
    ((entry, fields),) = shard.entries().items()
    at = fields.pop("at")
    assert fields == {"id": "a", "payload": '{"n":1}', "attempt": "1"}
    assert shard.record("a") == {
        "state": "queued", "capability": "x", "payload": '{"n":1}', "enqueued_at": at, "entry": entry,
    }  # fmt: skip
    assert shard.redis.smembers(shard.key("caps")) == {"x"}


def test_the_group_begins_at_the_first_entry(shard: Shard) -> None:
    """What was enqueued before the first agent came is not lost."""
    entry = shard.new("a")
    assert shard.read("ann.1") == [entry]


def test_the_wire_order_of_the_fields(shard: Shard) -> None:
    shard.new("a", extra={"deadline": "99999999999999", "correlation": "c", "header.tenant": "acme"})
    ((_, fields),) = shard.entries().items()
    assert list(fields) == ["id", "payload", "attempt", "at", "deadline", "correlation", "tenant"]


def test_what_stays_in_the_record(shard: Shard) -> None:
    shard.new("a", priority="high", extra={"waiters": "cli", "header.tenant": "acme"})
    record = shard.record("a")
    assert (record["priority"], record["waiters"], record["header.tenant"]) == ("high", "cli", "acme")
    ((_, fields),) = shard.entries("tasks:x:high").items()
    assert not {"priority", "waiters"} & set(fields)


def test_a_known_id_changes_nothing(shard: Shard) -> None:
    shard.new("a", payload="1")
    before = shard.dump()
    assert shard.enqueue(New("a", "1")) == ["duplicate queued"]
    assert shard.enqueue(New("a", "2")) == ["conflict queued"]
    assert shard.enqueue(New("a", "1", when="+5")) == ["duplicate queued"]
    assert shard.enqueue(New("a", "1", capability="y")) == ["duplicate queued"]
    after = shard.dump()
    assert after == before


def test_a_known_id_is_known_in_every_state(shard: Shard) -> None:
    one = shard.running("a")
    assert shard.enqueue(New("a")) == ["duplicate running"]
    shard.settle("ann.1", complete(one))
    assert shard.enqueue(New("a")) == ["duplicate succeeded"]
    shard.new("b", when="+5000")
    assert shard.enqueue(New("b")) == ["duplicate delayed"]


def test_one_id_twice_in_a_batch_is_one_task(shard: Shard) -> None:
    assert shard.enqueue(New("a", "1"), New("a", "1"), New("a", "2")) == ["ok", "duplicate queued", "conflict queued"]
    assert len(shard.entries()) == 1


def test_an_id_is_free_again_when_its_record_has_ended(shard: Shard) -> None:
    shard.settle("ann.1", complete(shard.running("a"), keep=1))
    while shard.record("a"):
        pass
    assert shard.enqueue(New("a", "other")) == ["ok"]


def test_a_delayed_task_has_a_record_and_a_due_time_and_no_entry(shard: Shard) -> None:
    assert shard.enqueue(New("a", when="+5000")) == ["ok"]
    record = shard.record("a")
    assert record["state"] == "delayed"
    assert "entry" not in record
    assert shard.due() == {"a": int(record["due"])}
    assert 4000 < int(record["due"]) - shard.now() <= 5000
    assert shard.redis.exists(shard.key("tasks:x")) == 0
    assert shard.redis.smembers(shard.key("caps")) == {"x"}


def test_a_point_in_time(shard: Shard) -> None:
    shard.new("a", when="99999999999999")
    assert shard.due() == {"a": 99999999999999}


def test_a_deadline_from_now_is_a_point_in_time_by_the_servers_clock(shard: Shard) -> None:
    shard.new("a", extra={"deadline": "+5000"})
    deadline = int(shard.record("a")["deadline"])
    assert 4000 < deadline - shard.now() <= 5000
    ((_, fields),) = shard.entries().items()
    assert fields["deadline"] == str(deadline)


def test_a_task_for_one_agent_goes_to_its_inbox(shard: Shard) -> None:
    shard.new("a", to="ann.1")
    ((_, fields),) = shard.entries("inbox:ann.1").items()
    assert fields["capability"] == "x"
    assert "to" not in fields
    assert shard.redis.zrange(shard.key("inboxes"), 0, -1) == ["ann.1"], "a sweep will look into it"
    assert shard.redis.exists(shard.key("tasks:x")) == 0


def test_a_thousand_over_several_streams(shard: Shard) -> None:
    lanes = ["", "high", "low"]
    tasks = [New(f"t{n}", priority=lanes[n % 3]) for n in range(1000)]
    assert shard.enqueue(*tasks) == ["ok"] * 1000
    assert [len(shard.entries(stream)) for stream in ("tasks:x", "tasks:x:high", "tasks:x:low")] == [334, 333, 333]
    assert shard.enqueue(*tasks) == ["duplicate queued"] * 1000


def test_a_record_of_another_type_in_the_middle_leaves_the_others_right(shard: Shard) -> None:
    shard.redis.set(shard.key("task:b"), "mine")
    assert shard.enqueue(New("a"), New("b"), New("c")) == ["ok", "conflict unusable", "ok"]
    assert len(shard.entries()) == 2
    assert shard.redis.get(shard.key("task:b")) == "mine"
    shard.redis.delete(shard.key("task:b"))


def test_a_stream_of_another_type_is_refused_before_anything_is_written(shard: Shard) -> None:
    shard.redis.set(shard.key("tasks:y"), "mine")
    with pytest.raises(MeshError, match="tasks:y is not a stream"):
        shard.enqueue(New("a"), New("b", capability="y"))
    assert set(shard.dump()) == {"tasks:y"}
    shard.redis.delete(shard.key("tasks:y"))


@pytest.mark.parametrize("payload", ["{}", '{"big":9007199254740993,"empty":[]}', '{"text":"ä \\u0000 \x00 \n"}'])
def test_a_payload_is_kept_to_the_byte(shard: Shard, payload: str) -> None:
    shard.new("a", payload=payload)
    assert shard.take().fields["payload"] == payload == shard.record("a")["payload"]
