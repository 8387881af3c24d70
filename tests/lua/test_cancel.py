"""task_cancel, task_wait and task_progress: what clients ask and what running attempts say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.shard import New, Shard, complete


def test_a_queued_task_is_cancelled_at_once(shard: Shard) -> None:
    shard.new("a", extra={"waiters": "cli"})
    assert shard.cancel("a", by="joe") == ["ok"]
    record = shard.record("a")
    assert (record["state"], record["error"]) == ("cancelled", "cancelled by joe")
    assert record["finished_at"]
    assert shard.ttl("task:a") > 0
    assert shard.entries() == {}
    assert shard.replies("cli") == [{"id": "a", "state": "cancelled", "value": "cancelled by joe"}]
    assert shard.claim() == []


def test_a_delayed_task_is_cancelled_at_once(shard: Shard) -> None:
    shard.new("a", when="1")
    assert shard.cancel("a") == ["ok"]
    assert shard.due() == {}
    assert shard.fire() == (0, "")
    assert shard.state("a") == "cancelled"


@pytest.mark.parametrize("where", [{"priority": "high"}, {"priority": "low"}, {"to": "ann.1"}])
def test_wherever_it_is_queued(shard: Shard, where: dict[str, Any]) -> None:
    task = New("a", **where)
    shard.enqueue(task)
    assert shard.cancel("a") == ["ok"]
    assert shard.entries(task.stream) == {}


def test_a_running_task_is_asked_to_stop(shard: Shard) -> None:
    one = shard.running("a")
    before = shard.record("a")
    assert shard.cancel("a", by="joe") == ["running ann.1"]
    assert shard.record("a") == before | {"cancel": "joe"}
    assert shard.cancel("a", by="joe") == ["running ann.1"]
    assert list(shard.pending()) == [one.entry]


def test_a_task_that_somebody_has_read_and_not_begun(shard: Shard) -> None:
    entry = shard.new("a")
    shard.open()
    shard.read("ann.1")
    assert shard.cancel("a") == ["ok"]
    assert shard.pending() == {}
    assert shard.claim("ann.1", given=[("tasks:x", entry)]) == []
    assert shard.state("a") == "cancelled"


def test_what_is_finished_stays_as_it_is(shard: Shard) -> None:
    shard.settle("ann.1", complete(shard.running("a")))
    before = shard.dump()
    assert shard.cancel("a", "nobody") == ["closed succeeded", "missing"]
    assert shard.dump() == before


def test_twice_is_once(shard: Shard) -> None:
    shard.new("a", extra={"waiters": "cli"})
    shard.cancel("a")
    before = shard.dump()
    assert shard.cancel("a") == ["closed cancelled"]
    assert shard.dump() == before


def test_a_bad_one_in_the_middle_leaves_the_others_right(shard: Shard) -> None:
    shard.enqueue(New("a"), New("c"))
    shard.redis.set(shard.key("task:b"), "mine")
    assert shard.cancel("a", "b", "c") == ["ok", "missing", "ok"]
    shard.redis.delete(shard.key("task:b"))


def test_a_thousand(shard: Shard) -> None:
    ids = [f"t{n}" for n in range(1000)]
    shard.enqueue(*(New(id) for id in ids))
    assert shard.cancel(*ids) == ["ok"] * 1000
    assert shard.entries() == {}


# -- wait


def test_whoever_waits_is_told(shard: Shard) -> None:
    one = shard.running("a")
    assert shard.wait("cli", "a") == [("running", "", "")]
    assert shard.wait("other", "a") == [("running", "", "")]
    assert shard.record("a")["waiters"] == "cli other"
    shard.settle("ann.1", complete(one, "7"))
    assert [reply["value"] for client in ("cli", "other") for reply in shard.replies(client)] == ["7", "7"]


def test_asking_twice_is_being_told_once(shard: Shard) -> None:
    shard.new("a")
    shard.wait("cli", "a")
    shard.wait("cli", "a")
    assert shard.record("a")["waiters"] == "cli"


def test_a_name_that_is_part_of_another_is_not_the_same(shard: Shard) -> None:
    shard.new("a", extra={"waiters": "client"})
    shard.wait("cli", "a")
    assert shard.record("a")["waiters"] == "client cli"


def test_what_is_finished_is_told_at_once(shard: Shard) -> None:
    shard.settle("ann.1", complete(shard.running("a"), "7"))
    before = shard.dump()
    assert shard.wait("cli", "a", "nobody") == [("succeeded", "7", ""), ("missing", "", "")]
    assert shard.dump() == before


def test_a_record_of_another_type_hides_nothing_else(shard: Shard) -> None:
    shard.redis.set(shard.key("task:a"), "mine")
    shard.new("b")
    assert [state for state, _, _ in shard.wait("cli", "a", "b")] == ["missing", "queued"]
    shard.redis.delete(shard.key("task:a"))


# -- progress


def test_progress_of_the_owner_only(shard: Shard) -> None:
    one = shard.running("a")
    assert shard.run("task_progress", "a", "ann.1", 1, "0.5") == "ok"
    assert shard.record("a")["progress"] == "0.5"
    before = shard.dump()
    assert shard.run("task_progress", "a", "bob.2", 1, "1") == "stale"
    assert shard.run("task_progress", "a", "ann.1", 2, "1") == "stale"
    assert shard.run("task_progress", "b", "ann.1", 1, "1") == "stale"
    assert shard.dump() == before
    shard.settle("ann.1", complete(one))
    assert shard.run("task_progress", "a", "ann.1", 1, "1") == "stale"
    assert shard.ttl("task:b") == -2
