"""When the server is out of memory: a script is refused whole, before its first write; whatever drains the mesh still runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streammesh.errors import ServerFull
from tests.lua.shard import New, Shard, complete, dead, fail, release


@contextmanager
def no_memory(shard: Shard) -> Iterator[None]:
    shard.redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        shard.redis.config_set("maxmemory", "0")


def test_what_makes_new_work_is_refused_whole(shard: Shard) -> None:
    ann = shard.join("ann", "x")
    shard.settle(ann, dead(shard.running("dead", ann)))
    shard.new("a")
    before = shard.dump()
    with no_memory(shard):
        for refused in (
            lambda: shard.enqueue(New("b"), New("c", when="+5"), New("d", to=ann)),
            lambda: shard.send(ann, id="m", type="tell", payload="1"),
            lambda: shard.retry("dead"),
        ):
            with pytest.raises(ServerFull):
                refused()
    assert shard.dump() == before


def test_a_full_mesh_drains(shard: Shard) -> None:
    """Claims and timers must run, else no memory would ever become free."""
    shard.enqueue(*(New(f"t{n}") for n in range(6)), New("later", when="1"))
    with no_memory(shard):
        assert shard.run("mesh_open", 1, 1)[1:] == ["1", "1", ""]  # or no agent could come to help
        assert shard.fire() == (1, "")
        assert shard.sweep("ann.1") == ([], [])
        items = shard.claim("ann.1", 5)
        assert shard.renew("ann.1", items) == ([], [], 0)
        one, two, three, four, five = items
        verdicts = shard.settle("ann.1", complete(one), dead(two), fail(three), release(four), complete(five))
        assert verdicts == ["ok"] * 5
        assert shard.cancel("t3") == ["ok"]
    assert [shard.state(f"t{n}") for n in range(6)] == [
        "succeeded",
        "dead",
        "delayed",
        "cancelled",
        "succeeded",
        "queued",
    ]


def test_nobody_seems_dead_and_the_dead_are_buried(shard: Shard) -> None:
    shard.join("ann", "x")
    shard.new("a", to="ann.1")
    with no_memory(shard):
        assert shard.beat("ann.1", "x") == "ok"
        assert shard.join("bob", "x") == "bob.2"
        shard.open("bob.2")
        shard.crash("ann.1")
        assert shard.bury_agents() == (["ann.1"], ["bob.2"])
        assert shard.drain("ann.1", "x") == ("ok", 1, 0)
        assert shard.leave("bob.2", "x") == "ok"
    assert shard.take("cal.3").id == "a"


def test_orphans_are_taken_over(shard: Shard) -> None:
    shard.running("a", "ann.1")
    shard.crash("ann.1")
    with no_memory(shard):
        assert shard.sweep("bob.2")[0] == [("tasks:x", "ann.1")]
        assert shard.take("bob.2", orphans=[("tasks:x", "ann.1")]).attempt == 2


def test_what_is_asked_is_answered(shard: Shard) -> None:
    shard.running("a")
    with no_memory(shard):
        assert shard.wait("cli", "a") == [("running", "", "")]
        assert shard.run("task_progress", "a", "ann.1", 1, "1") == "ok"


def test_a_script_that_is_not_known_any_more_is_sent_again(shard: Shard) -> None:
    shard.new("a")
    shard.redis.script_flush()
    assert shard.take().id == "a"
    shard.redis.script_flush()
    assert shard.renew("ann.1") == ([], [], 0)
