"""The scripts of auctions: how they end, and what becomes of work whose winner dies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lua.bidders import Sale
from tests.lua.shard import Shard


@pytest.fixture
def sale(shard: Shard) -> Sale:
    return Sale(shard)


# -- the end


@pytest.mark.parametrize(
    ("verb", "state"), [("complete", "done"), ("reject", "failed"), ("dead", "failed"), ("expire", "expired"), ("cancel", "cancelled")]
)  # fmt: skip
def test_it_ends_with_its_work(sale: Sale, verb: str, state: str) -> None:
    got = sale.working(waiters="c-1")
    assert sale.finish(got, "b1.1", verb, "1", "boom" if verb == "dead" else 60_000) == "ok"
    assert sale.state() == state
    assert [one["state"] for one in sale.answers()] == [state]
    assert sale.shard.ttl("auction:a:bids") > 0
    assert sale.audit()[-1] == state
    before = sale.shard.dump()
    assert sale.cancel() == f"closed {state}"
    assert sale.tend() == ""
    assert sale.bid("b2.2", eta=0) == "late"
    assert sale.confirm() == ["stale"]
    assert sale.finish(got, "b1.1", verb, "1", "boom" if verb == "dead" else 60_000) == "ok"
    after = sale.shard.dump()
    before.pop("auction:a:audit"), after.pop("auction:a:audit")
    assert after == before


def to_deciding(sale: Sale) -> None:
    sale.open(scorer="c-1")
    sale.all_bid()


def to_awarded(sale: Sale) -> None:
    sale.open()
    sale.all_bid()


BEFORE_WORK = [lambda sale: sale.open(), to_deciding, to_awarded]


@pytest.mark.parametrize("begin", BEFORE_WORK, ids=["open", "deciding", "awarded"])
def test_cancelling_before_the_confirmation_is_immediate(sale: Sale, begin: Callable[[Sale], object]) -> None:
    begin(sale)
    assert sale.cancel() == "ok"
    assert sale.state() == "cancelled"
    assert sale.confirm("b1.1", award="1") == ["stale"]
    assert sale.shard.record("a:work") == {}
    assert sale.cancel() == "closed cancelled"
    assert sale.cancel("never") == "missing"


@pytest.mark.parametrize("begin", BEFORE_WORK, ids=["open", "deciding", "awarded"])
def test_a_deadline_that_passed_before_anybody_began(sale: Sale, begin: Callable[[Sale], object]) -> None:
    begin(sale)
    sale.pass_time(field="deadline")
    sale.tend()
    assert (sale.state(), sale.record()["reason"]) == ("expired", "deadline")


def test_cancelling_after_the_confirmation_is_asked_of_the_winner(sale: Sale) -> None:
    got = sale.working()
    assert sale.cancel() == "running b1.1"
    assert sale.state() == "working"
    sale.finish(got, "b1.1", "fail", "stopped", 1000)
    assert sale.state() == "cancelled"
    sale.open("b", bidders=(), fallback="queue")
    assert sale.cancel("b") == "ok"
    assert sale.state("b") == "cancelled"


# -- the winner's death


def test_the_work_of_a_dead_winner_goes_to_the_next_best(sale: Sale) -> None:
    got = sale.working()
    sale.shard.crash("b1.1", "inbox:b1.1")
    assert sale.shard.drain("b1.1", "x") == ("ok", 1, 0)
    assert (sale.state(), sale.record()["winner"]) == ("awarded", "b2.2")
    assert sale.shard.state("a:work") == "delayed"
    assert sale.finish(got, "b1.1") == "stale"
    word, entry, task, attempt, *_ = again = sale.confirm()
    assert (word, task, attempt) == ("ok", "a:work", 2)
    record = sale.shard.record("a:work")
    assert (record["state"], record["agent"], record["entry"], record["deaths"]) == ("running", "b2.2", entry, "1")
    assert list(sale.shard.redis.zrange(sale.shard.key("due"), 0, -1)) == []
    assert sale.finish(again, "b2.2") == "ok"
    assert sale.state() == "done"


def test_and_in_the_end_to_the_queue_whatever_the_fallback(sale: Sale) -> None:
    sale.working(fallback="none", round="1")
    sale.shard.drain("b1.1", "x")
    sale.tend("a", "b2.2")
    sale.tend("a", "b3.3")
    assert (sale.state(), sale.shard.state("a:work")) == ("queued", "queued")
    assert [one.id for one in sale.shard.claim("zed.9")] == ["a:work"]


def test_work_that_nobody_drives_on_goes_to_the_queue_by_itself(sale: Sale) -> None:
    sale.working()
    sale.shard.drain("b1.1", "x")
    sale.shard.redis.zadd(sale.shard.key("due"), {"task:a:work": 1})
    sale.shard.fire()
    assert sale.shard.state("a:work") == "queued"
    assert sale.confirm() == ["stale"]
    assert sale.state() == "queued"


def test_work_that_kills_its_agents_is_buried(sale: Sale) -> None:
    sale.working()
    for agent in ("b1.1", "b2.2"):
        sale.shard.drain(agent, "x")
        assert sale.confirm()[0] == "ok"
    sale.shard.drain("b3.3", "x")
    assert (sale.state(), sale.shard.record("a:work")["reason"]) == ("failed", "poison")


def test_a_winner_whose_capability_nobody_else_offers(sale: Sale) -> None:
    sale.working()
    assert sale.shard.drain("b1.1") == ("ok", 0, 1)
    assert sale.state() == "failed"


def test_calls_to_the_dead_leave_no_letters(sale: Sale) -> None:
    sale.open()
    assert sale.shard.drain("b1.1", "x") == ("ok", 0, 0)
    assert sale.shard.entries("dead:inbox") == {}


def test_due_names_it_and_its_own_script_takes_the_member_away(sale: Sale) -> None:
    sale.open()
    sale.pass_time()
    sale.shard.redis.zadd(sale.shard.key("due"), {"auction a": 1})
    assert sale.shard.run("due_fire", 10, 0)[2:] == ["auction a"]
    sale.tend()
    assert list(sale.shard.redis.zrange(sale.shard.key("due"), 0, -1)) == []
