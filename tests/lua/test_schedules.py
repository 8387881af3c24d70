"""schedule_put, schedule_fire, schedule_act: every arrow, what is refused, and calls whose reply was lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.shard import Shard

NAMES = ("workflow", "version", "task", "input", "cron", "every", "tz", "overlap", "missed", "start", "end", "jitter")
RUN = {
    "workflow": "digest",
    "version": "1",
    "input": "{}",
    "every": "60",
    "tz": "UTC",
    "overlap": "skip",
    "missed": "latest",
}
TASK = {"task": "x", "input": '{"n":1}', "every": "60", "tz": "UTC", "overlap": "skip", "missed": "latest"}
AT = 1_000_000
NEXT = AT + 60_000


def put(shard: Shard, definition: dict[str, str], first: int | str = AT) -> str:
    pairs = [part for name in NAMES for part in (name, definition.get(name, ""))]
    return str(shard.run("schedule_put", "s", first, first, 0, *pairs))


def fire(
    shard: Shard, *ids: str, revision: str = "1", expected: int = AT, following: int | str = NEXT, missed: int = 0
) -> str:
    starts = [word for id in ids for word in (id, "1970-01-01T00:16:40Z")]
    return str(shard.run("schedule_fire", "s", revision, expected, following, following, 60_000, missed, *starts))


def act(shard: Shard, verb: str, *more: Any, revision: str = "1") -> str:
    return str(shard.run("schedule_act", "s", verb, "ada", revision, *more))


def record(shard: Shard) -> dict[str, str]:
    found: dict[str, str] = shard.redis.hgetall(shard.key("schedule:s"))
    return found


def due(shard: Shard) -> dict[str, float]:
    return dict(shard.redis.zrange(shard.key("due"), 0, -1, withscores=True))


def test_it_is_made_changed_or_left_alone(shard: Shard) -> None:
    assert put(shard, RUN) == "created"
    before = shard.dump()
    # Also when it is a repetition of a call whose reply was lost.
    assert put(shard, RUN, AT + 5) == "unchanged"
    assert shard.dump() == before
    assert put(shard, {**RUN, "every": "90"}, AT + 5) == "changed"
    assert (record(shard)["revision"], record(shard)["next"], due(shard)) == ("2", str(AT + 5), {"schedule s": AT + 5})
    assert put(shard, TASK) == "changed"
    assert "workflow" not in record(shard)
    assert shard.redis.smembers(shard.key("schedules")) == {"s"}


def test_a_run_is_started_once_and_the_next_time_set(shard: Shard) -> None:
    put(shard, RUN)
    assert fire(shard, "s:1") == "ok"
    head = shard.redis.hgetall(shard.key("run:s:1"))
    assert (head["state"], head["schedule"], head["occurrence"]) == ("queued", "s", "1970-01-01T00:16:40Z")
    assert (record(shard)["next"], record(shard)["last"], record(shard)["fired"]) == (str(NEXT), "s:1", "1")
    assert due(shard) == {"schedule s": NEXT}
    before = shard.dump()
    assert fire(shard, "s:1") == "stale"
    assert shard.dump() == before


def test_a_task_is_enqueued_once(shard: Shard) -> None:
    put(shard, TASK)
    assert fire(shard, "s:1") == "ok"
    assert fire(shard, "s:1") == "stale"
    ((_, fields),) = shard.entries("tasks:x").items()
    assert (fields["id"], fields["payload"], fields["schedule"]) == ("s:1", '{"n":1}', "s")


@pytest.mark.parametrize("definition", [RUN, TASK], ids=["run", "task"])
def test_what_was_started_under_that_id_before_is_not_started_again(shard: Shard, definition: dict[str, str]) -> None:
    put(shard, definition)
    fire(shard, "s:1")
    act(shard, "remove")
    put(shard, {**definition, "overlap": "allow"})
    length = shard.redis.xlen(shard.key("runs:digest")) + shard.redis.xlen(shard.key("tasks:x"))
    assert fire(shard, "s:1") == "ok"
    assert shard.redis.xlen(shard.key("runs:digest")) + shard.redis.xlen(shard.key("tasks:x")) == length


def test_a_caller_that_reckoned_with_another_definition_changes_nothing(shard: Shard) -> None:
    put(shard, RUN)
    put(shard, {**RUN, "every": "90"})
    before = shard.dump()
    assert fire(shard, "s:1", revision="1") == "stale"
    assert fire(shard, "s:1", revision="2", expected=AT - 1) == "stale"
    assert shard.dump() == before


def test_none_is_left(shard: Shard) -> None:
    put(shard, RUN)
    assert fire(shard, "s:1", following="") == "ok"
    assert (record(shard)["state"], due(shard)) == ("ended", {})
    assert put(shard, {**RUN, "every": "30"}) == "changed"
    assert (record(shard)["state"], due(shard)) == ("active", {"schedule s": AT})
    assert put(shard, {**RUN, "end": "1970-01-01T00:00:00Z"}, "") == "changed"
    assert (record(shard)["state"], due(shard)) == ("ended", {})


@pytest.mark.parametrize("definition", [RUN, TASK], ids=["run", "task"])
def test_overlap(shard: Shard, definition: dict[str, str]) -> None:
    word = "run" if definition is RUN else "task"
    put(shard, definition)
    assert fire(shard, "s:1", "s:2") == "ok"
    assert not shard.redis.exists(shard.key(f"{word}:s:2"))
    assert record(shard)["skipped"] == "1"
    put(shard, {**definition, "overlap": "replace"})
    assert fire(shard, "s:3", revision="2") == "ok"
    assert shard.redis.hget(shard.key(f"{word}:s:1"), "state") == "cancelled"
    assert "s:3" in shard.redis.hget(shard.key(f"{word}:s:1"), "error")
    put(shard, {**definition, "overlap": "allow"})
    assert fire(shard, "s:4", "s:5", revision="3", missed=7) == "ok"
    states = [shard.redis.hget(shard.key(f"{word}:s:{n}"), "state") for n in (3, 4, 5)]
    assert states == ["queued"] * 3
    assert (record(shard)["fired"], record(shard)["missed_count"]) == ("4", "7")


def test_a_pause_takes_it_out_of_what_is_due(shard: Shard) -> None:
    put(shard, RUN)
    assert act(shard, "pause") == "ok"
    assert act(shard, "pause") == "unchanged paused"
    assert (record(shard)["paused"], due(shard)) == ("ada", {})
    assert fire(shard, "s:1") == "stale"
    assert put(shard, {**RUN, "every": "90"}) == "changed"
    assert (record(shard)["state"], due(shard)) == ("paused", {})
    assert act(shard, "resume", NEXT, NEXT, revision="1") == "stale"
    assert act(shard, "resume", NEXT, NEXT, revision="2") == "ok"
    assert act(shard, "resume", NEXT, NEXT, revision="2") == "unchanged active"
    assert due(shard) == {"schedule s": NEXT}


def test_one_by_hand_is_started_once_though_the_reply_was_lost(shard: Shard) -> None:
    put(shard, RUN)
    assert act(shard, "run", "s:x", "1970-01-01T00:16:40Z") == "ok"
    assert act(shard, "run", "s:x", "1970-01-01T00:16:40Z") == "ok"
    assert record(shard)["fired"] == "1"
    assert shard.redis.xlen(shard.key("runs:digest")) == 1


def test_what_is_removed_is_gone(shard: Shard) -> None:
    put(shard, RUN)
    assert act(shard, "remove") == "ok"
    assert [act(shard, verb) for verb in ("remove", "pause", "resume", "run")] == ["missing"] * 4
    assert (record(shard), due(shard), shard.redis.exists(shard.key("schedules"))) == ({}, {}, 0)
    shard.redis.zadd(shard.key("due"), {"schedule s": 1})
    assert fire(shard, "s:1") == "missing"
    assert due(shard) == {}


def test_a_stream_that_is_something_else_starts_nothing(shard: Shard) -> None:
    put(shard, TASK)
    shard.redis.set(shard.key("tasks:x"), "?")
    before = record(shard)
    assert fire(shard, "s:1") == "unusable"
    assert act(shard, "run", "s:x", "") == "unusable"
    assert record(shard) == before
    shard.redis.delete(shard.key("tasks:x"))


def test_it_is_named_until_somebody_acts(shard: Shard) -> None:
    put(shard, RUN)
    now = shard.now()
    assert shard.run("due_fire", 10, 0)[2:] == ["schedule s"]
    assert now + 1900 < due(shard)["schedule s"] < now + 3000
    # Nobody looks ahead to it: there would always be one more.
    assert shard.run("due_fire", 10, 10**9)[2:] == []
    assert now + 1900 < due(shard)["schedule s"] < now + 3000
