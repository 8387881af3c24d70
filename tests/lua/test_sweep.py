"""task_sweep: whose entries are orphans, and when nobody may say so."""

from __future__ import annotations

from tests.lua.shard import FAR, LEASE, Shard


def orphaned(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.crash("ann.1")


def tick(shard: Shard, ago: int) -> None:
    """The last sweep was so many ms ago."""
    shard.redis.hset(shard.key("sweep"), "tick", str(shard.now() - ago))


def test_consumers_with_entries_that_do_not_live_are_orphaned(shard: Shard) -> None:
    orphaned(shard)
    assert shard.sweep("bob.2") == ([("tasks:x", "ann.1")], [])
    assert shard.sweep("ann.1", "bob.2") == ([], [])


def test_a_sweep_changes_nothing_but_its_own_clock(shard: Shard) -> None:
    orphaned(shard)
    before = shard.dump()
    shard.sweep("bob.2")
    after = shard.dump()
    assert set(after.pop("sweep")[0]) == {"tick"}
    assert after == before


def test_after_a_gap_nothing_is_taken_for_one_lease(shard: Shard) -> None:
    """The server stood still, or nobody was there: live agents had no chance to beat either."""
    orphaned(shard)
    tick(shard, LEASE)
    assert shard.sweep("bob.2", stall=LEASE // 2) == ([], [])
    grace = int(shard.redis.hget(shard.key("sweep"), "grace"))
    assert 0 < grace - shard.now() <= LEASE
    assert shard.sweep("bob.2") == ([], [])
    shard.redis.hset(shard.key("sweep"), "grace", str(shard.now()))
    assert shard.sweep("bob.2")[0] == [("tasks:x", "ann.1")]


def test_sweeps_in_time_give_no_grace(shard: Shard) -> None:
    orphaned(shard)
    tick(shard, LEASE // 4)
    assert shard.sweep("bob.2")[0] == [("tasks:x", "ann.1")]


def test_an_agent_with_a_short_lease_does_not_shorten_the_grace_of_others(shard: Shard) -> None:
    far = str(shard.now() + 10 * LEASE)
    shard.redis.hset(shard.key("sweep"), "grace", far)
    tick(shard, LEASE)
    shard.sweep("bob.2")
    assert shard.redis.hget(shard.key("sweep"), "grace") == far


def test_idle_consumers_of_dead_agents_are_forgotten_when_nothing_is_pending(shard: Shard) -> None:
    shard.open("ann.1")
    shard.read("ann.1")
    shard.new("a")
    shard.read("ann.1")
    shard.cancel("a")

    def consumers() -> list[str]:
        return [one["name"] for one in shard.redis.xinfo_consumers(shard.key("tasks:x"), "agents")]

    shard.sweep("bob.2")
    assert consumers() == ["ann.1"], "it may only have paused"
    shard.run("task_sweep", 0, LEASE, 1, FAR, "ann.1", streams=["tasks:x"])
    assert consumers() == ["ann.1"], "it lives"
    now = shard.now()
    while shard.now() <= now + 1:
        pass
    shard.run("task_sweep", 0, LEASE, 1, FAR, "bob.2", streams=["tasks:x"])
    assert consumers() == []


def test_consumers_with_entries_are_never_forgotten(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.run("task_sweep", 0, LEASE, 1, FAR, "bob.2", streams=["tasks:x"])
    assert list(shard.pending().values()) == ["ann.1"]


def test_streams_that_are_not_there_are_skipped(shard: Shard) -> None:
    shard.redis.set(shard.key("tasks:y"), "mine")
    assert shard.sweep("bob.2", streams=["tasks:x", "tasks:y"]) == ([], [])
    shard.redis.delete(shard.key("tasks:y"))


def test_inboxes_that_outlived_their_agents_by_a_lease(shard: Shard) -> None:
    for agent, age in (("ann.1", 2 * LEASE), ("bob.2", 2 * LEASE), ("new.3", 0)):
        shard.open(agent)
        shard.redis.zadd(shard.key("inboxes"), {agent: shard.now() - age})
    assert shard.sweep("bob.2")[1] == ["ann.1"]


def test_a_sweep_says_when_something_is_due_and_which_missing_streams_have_appeared(shard: Shard) -> None:
    streams = ["tasks:x", "tasks:x:high", "tasks:x:low"]
    assert shard.run("task_sweep", LEASE, LEASE, 1, FAR, streams=streams)[2:] == ["", []]
    shard.new("late", when="+60000")
    shard.new("soon", when="+30000")
    shard.redis.xadd(shard.key("tasks:x:low"), {"payload": "{}"})
    due, appeared = shard.run("task_sweep", LEASE, LEASE, 1, FAR, streams=streams)[2:]
    assert 29_000 < int(due) <= 30_000
    assert appeared == [4]
    tick(shard, 2 * LEASE)
    assert shard.run("task_sweep", LEASE, LEASE, 1, FAR, streams=streams)[3] == [4], (
        "also while nothing may be taken over"
    )


def test_a_caller_that_stood_still_takes_nothing_from_those_who_joined_meanwhile(shard: Shard) -> None:
    orphaned(shard)
    streams = ["tasks:x"]
    assert shard.run("task_sweep", LEASE, LEASE, 1, shard.now() - LEASE - 1, "bob.2", streams=streams)[0] == []
    assert shard.run("task_sweep", LEASE, LEASE, 1, shard.now(), "bob.2", streams=streams)[0] == [2, "ann.1"]
