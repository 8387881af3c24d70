"""agent_join, agent_beat, agent_leave, agent_expire, stream_open and mesh_open: who is here."""

from __future__ import annotations

import time

import pytest

from tests.lua.shard import LEASE, Shard


def members(shard: Shard) -> list[tuple[str, str]]:
    return [(one["type"], one["agent"]) for one in shard.entries("members").values()]


def offers(shard: Shard, capability: str = "x") -> set[str]:
    return set(shard.redis.smembers(shard.key(f"cap:{capability}:agents")))


def test_every_process_has_an_id_of_its_own(shard: Shard) -> None:
    assert [shard.join("ann", "x"), shard.join("ann", "x"), shard.join("bob", "x")] == ["ann.1", "ann.2", "bob.3"]
    assert offers(shard) == {"ann.1", "ann.2", "bob.3"}
    assert members(shard) == [("joined", "ann.1"), ("joined", "ann.2"), ("joined", "bob.3")]


def test_the_card(shard: Shard) -> None:
    shard.join("ann", "x", boot="b1")
    card = shard.redis.hgetall(shard.key("agent:ann.1"))
    assert card.pop("joined_at")
    assert card == {"name": "ann", "epoch": "1", "boot": "b1", "state": "ready"}
    assert 0 < shard.ttl("agent:ann.1") <= LEASE
    assert abs(shard.redis.zscore(shard.key("agents"), "ann.1") - shard.now()) < 5000


def test_a_beat_renews_the_lease(shard: Shard) -> None:
    shard.join("ann", "x")
    shard.redis.pexpire(shard.key("agent:ann.1"), 100)
    assert shard.beat("ann.1", "x") == "ok"
    assert shard.ttl("agent:ann.1") > 100
    assert len(members(shard)) == 1


def test_a_beat_tells_what_is_paused(shard: Shard) -> None:
    shard.join("ann", "x", "y")
    shard.redis.hset(shard.key("cap:y"), "paused", "joe")
    reply = shard.run("agent_beat", "ann.1", "ann", 1, "boot", LEASE, 0, "x", "y")
    assert (reply[0], reply[2:]) == ("ok", ["y"])


def test_an_id_that_another_process_has_is_taken(shard: Shard) -> None:
    shard.join("ann", "x", boot="theirs")
    before = shard.dump()
    assert shard.beat("ann.1", "x", boot="mine") == "taken"
    assert shard.leave("ann.1", "x", boot="mine") == "stale"
    assert shard.dump() == before


def test_an_agent_whose_registration_was_lost_comes_back(shard: Shard) -> None:
    """After FLUSHALL, or a freeze: it keeps its id, and nobody else can get it."""
    assert shard.beat("ann.7", "x") == "back"
    assert offers(shard) == {"ann.7"}
    assert shard.ttl("agent:ann.7") > 0
    assert shard.redis.smembers(shard.key("caps")) == {"x"}
    assert shard.join("ann", "x") == "ann.8"
    assert shard.beat("ann.7", "x") == "ok"


def test_the_epoch_never_falls(shard: Shard) -> None:
    for _ in range(3):
        shard.join("ann")
    shard.redis.delete(shard.key("agent:ann.1"))
    assert shard.beat("ann.1") == "back"
    assert shard.join("bob") == "bob.4"


def test_who_leaves_is_gone_at_once(shard: Shard) -> None:
    shard.join("ann", "x")
    assert shard.leave("ann.1", "x") == "ok"
    assert offers(shard) == set()
    assert shard.redis.exists(shard.key("agent:ann.1"), shard.key("agents")) == 0
    assert members(shard) == [("joined", "ann.1"), ("left", "ann.1")]
    before = shard.dump()
    assert shard.leave("ann.1", "x") == "ok"
    assert shard.dump() == before


def test_who_does_not_beat_is_dead(shard: Shard) -> None:
    shard.join("ann", "x", "y")
    shard.join("bob", "x")
    shard.crash("ann.1")
    assert shard.bury_agents() == (["ann.1"], ["bob.2"])
    assert (offers(shard), offers(shard, "y")) == ({"bob.2"}, set())
    assert members(shard)[-1] == ("died", "ann.1")
    before = shard.dump()
    assert shard.bury_agents() == ([], ["bob.2"])
    assert shard.dump() == before


def test_deaths_are_found_in_pieces(shard: Shard) -> None:
    for number in range(5):
        shard.join("ann", "x")
        shard.crash(f"ann.{number + 1}")
    assert [len(shard.bury_agents(limit=2)[0]) for _ in range(4)] == [2, 2, 1, 0]


def test_a_dead_agent_may_come_back(shard: Shard) -> None:
    shard.join("ann", "x")
    shard.crash("ann.1")
    shard.bury_agents()
    assert shard.beat("ann.1", "x") == "back"
    assert offers(shard) == {"ann.1"}
    assert shard.bury_agents() == ([], ["ann.1"])


def test_streams_are_made_with_their_group_and_listed(shard: Shard) -> None:
    shard.raw(payload="{}")
    shard.open("ann.1")
    assert shard.redis.smembers(shard.key("caps")) == {"x"}
    assert shard.redis.zrange(shard.key("inboxes"), 0, -1) == ["ann.1"]
    assert len(shard.read("ann.1")) == 1, "what was added before is not lost"
    before = shard.dump()
    shard.open("ann.1")
    assert shard.dump() == before


def test_a_stream_of_another_type_is_told_and_passed_over(shard: Shard) -> None:
    shard.redis.set(shard.key("tasks:x"), "mine")
    shard.open("ann.1")
    assert [one["stream"] for one in shard.events("stream.unusable")] == [shard.key("tasks:x")]
    assert shard.redis.exists(shard.key("inbox:ann.1"))
    shard.redis.delete(shard.key("tasks:x"))


def test_a_mesh_is_made_once(shard: Shard) -> None:
    assert shard.run("mesh_open", 1, 4) == ["created", "1", "4", ""]
    assert shard.run("mesh_open", 2, 8) == ["ok", "1", "4", ""]


def test_a_mesh_whose_meta_has_an_epoch_only_is_still_made(shard: Shard) -> None:
    """After FLUSHALL an agent may come back before a client opens the mesh."""
    shard.beat("ann.3")
    assert shard.run("mesh_open", 1, 4) == ["created", "1", "4", ""]
    assert shard.redis.hget(shard.key("meta"), "epoch") == "3"


@pytest.mark.parametrize(
    "ms", [0, 951782399999, 951782400000, 1709164800123, 1735689599999, 4102444800000, 1763822757045, 253402300799999]
)
def test_times_are_iso_8601(shard: Shard, ms: int) -> None:
    from streammesh.store import load_script

    text = load_script("mesh_open").text.partition("local meta")[0] + "return iso(tonumber(ARGV[1]))"
    expected = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03}Z"
    assert shard.redis.eval(text, 1, shard.prefix, ms) == expected


def silence(shard: Shard, *ids: str, ago: int) -> None:
    """They beat last so many ms ago, and their lease has ended."""
    for id in ids:
        shard.redis.zadd(shard.key("agents"), {id: shard.now() - ago})
        shard.crash(id)


def expire(shard: Shard, limit: int = 50) -> tuple[list[str], int, int]:
    """(dead now, how many live, how many of these are spared)"""
    dead, live, now, spared, _ = shard.run("agent_expire", limit, 2 * LEASE, LEASE // 2)
    assert abs(int(now) - shard.now()) < 5000
    return sorted(dead), len(live), int(spared)


def test_who_does_not_trust_himself_buries_nobody(shard: Shard) -> None:
    shard.join("ann", "x")
    shard.join("bob", "x")
    silence(shard, "ann.1", ago=99 * LEASE)
    before = shard.dump()
    assert expire(shard, limit=0) == ([], 2, 1)
    assert shard.dump() == before
    assert expire(shard) == (["ann.1"], 1, 0)


def test_when_most_are_silent_at_once_nobody_is_buried_for_a_lease(shard: Shard) -> None:
    for _ in range(5):
        shard.join("ann", "x")
    silence(shard, "ann.1", "ann.2", "ann.3", ago=LEASE + 1)
    assert expire(shard) == expire(shard) == ([], 5, 3)
    assert [(one["silent"], one["alive"]) for one in shard.events("agents.held")] == [("3", "2")], "said once"
    shard.beat("ann.1", "x")
    assert expire(shard) == ([], 5, 2), "the others may be back in a moment as well"
    silence(shard, "ann.1", "ann.4", "ann.5", ago=2 * LEASE + 1)
    assert expire(shard) == (["ann.1", "ann.4", "ann.5"], 2, 2), "silent for two leases: dead, however many"
    silence(shard, "ann.2", "ann.3", ago=2 * LEASE + 1)
    assert expire(shard) == (["ann.2", "ann.3"], 0, 0)


def test_two_of_five_are_no_mass(shard: Shard) -> None:
    for _ in range(5):
        shard.join("ann", "x")
    silence(shard, "ann.1", "ann.2", ago=LEASE + 1)
    assert expire(shard) == (["ann.1", "ann.2"], 3, 0)


def test_after_a_gap_in_the_sweeping_and_in_the_grace_after_it_nobody_is_buried(shard: Shard) -> None:
    shard.join("ann", "x")
    shard.join("bob", "x")
    silence(shard, "ann.1", ago=99 * LEASE)
    shard.redis.hset(shard.key("sweep"), "tick", str(shard.now() - LEASE))
    assert expire(shard) == ([], 2, 1)
    shard.redis.hset(shard.key("sweep"), mapping={"tick": str(shard.now()), "grace": str(shard.now() + LEASE)})
    assert expire(shard) == ([], 2, 1)
    shard.redis.hset(shard.key("sweep"), "grace", str(shard.now() - 1))
    assert expire(shard) == (["ann.1"], 1, 0)


def beat_of(shard: Shard, id: str) -> str:
    return str(shard.redis.zscore(shard.key("agents"), id))


def vanish(shard: Shard, **missed: str) -> list[str]:
    words = [word for id, beat in missed.items() for word in (id.replace("_", "."), beat)]
    return list(shard.run("agent_vanish", *words))


def test_an_agent_of_which_no_connection_is_left_is_buried_before_its_lease_ends(shard: Shard) -> None:
    shard.join("ann", "x")
    shard.join("bob", "x")
    assert vanish(shard, ann_1=beat_of(shard, "ann.1")) == ["ann.1"]
    assert shard.redis.exists(shard.key("agent:ann.1")) == 0
    assert [fields["type"] for _, fields in shard.redis.xrange(shard.key("control"))] == ["vanished"]
    assert list(shard.entries("members").values())[-1]["reason"] == "vanished"
    # Asked again, or by another one: nothing more happens, and everybody learns whose work may move.
    assert vanish(shard, ann_1="1") == []
    assert shard.bury_agents() == ([], ["bob.2"])
    assert shard.vanished == ["ann.1"]
    assert offers(shard) == {"bob.2"}


def test_an_agent_that_has_beaten_since_it_was_missed_is_left_alone(shard: Shard) -> None:
    shard.join("ann", "x")
    missed = str(float(beat_of(shard, "ann.1")) - 1)
    before = shard.dump()
    assert vanish(shard, ann_1=missed, joe_9="1") == []
    assert shard.dump() == before


def test_an_agent_that_was_taken_for_gone_is_back_with_its_next_beat(shard: Shard) -> None:
    shard.join("ann", "x")
    vanish(shard, ann_1=beat_of(shard, "ann.1"))
    assert shard.beat("ann.1", "x") == "back"
    assert shard.bury_agents() == ([], ["ann.1"])
    assert shard.vanished == []


def test_when_its_lease_would_have_ended_it_is_dead_like_any_other(shard: Shard) -> None:
    shard.join("ann", "x")
    vanish(shard, ann_1=beat_of(shard, "ann.1"))
    left = shard.redis.zscore(shard.key("vanished"), "ann.1") - shard.now()
    assert 0 < left <= LEASE
    shard.redis.zadd(shard.key("vanished"), {"ann.1": shard.now() - 1})
    shard.bury_agents()
    assert shard.vanished == []


def test_an_evicted_agent_is_out_and_stays_out(shard: Shard) -> None:
    ann, bob = shard.join("ann", "x"), shard.join("bob", "x")
    assert shard.run("agent_evict", ann, "cli") == "ok"
    assert shard.run("agent_evict", ann, "cli") == "missing"
    assert shard.run("agent_evict", "nobody.9", "cli") == "missing"
    last = list(shard.entries("members").values())[-1]
    assert (last["type"], last["agent"], last["reason"], last["capabilities"]) == ("died", ann, "evicted", "x")
    before = shard.dump()
    assert shard.beat(ann, "x") == "evicted"
    assert shard.dump() == before, "its beat changes nothing"
    assert shard.beat(bob, "x") == "ok"
    assert shard.redis.smembers(shard.key("cap:x:agents")) == {bob}
    assert shard.redis.zscore(shard.key("vanished"), ann) >= shard.now(), "its work may move at once"
    assert 0 < shard.ttl("vanished") <= 86_400_000
    shard.redis.delete(shard.key("vanished"))
