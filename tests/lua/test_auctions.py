"""The scripts of auctions: every arrow of streammesh/lua/README.md, every refused one, and who wins."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.lua.bidders import THREE, Sale
from tests.lua.shard import Shard, complete


@pytest.fixture
def sale(shard: Shard) -> Sale:
    return Sale(shard)


# -- opening


def test_opening_asks_everybody_in_the_same_step(sale: Sale) -> None:
    assert sale.open(payload='{"n":1}') == "ok"
    assert sale.state() == "open"
    assert [sale.mail(bidder) for bidder in THREE] == [["auction.call"]] * 3
    (call,) = sale.shard.entries("mail:b2.2").values()
    assert '"payload":{"n":1}' in call["payload"]
    assert call["causation"] == "a"
    assert list(sale.shard.redis.zrange(sale.shard.key("due"), 0, -1)) == ["auction a"]


def test_a_known_id_is_the_same_auction(sale: Sale) -> None:
    sale.open()
    before = sale.shard.dump()
    assert sale.open() == "duplicate open"
    assert sale.open(payload='{"n":2}') == "conflict open"
    assert sale.shard.dump() == before
    sale.shard.new("b:work")
    assert sale.open("b") == "conflict task"


@pytest.mark.parametrize(("fallback", "state"), [("none", "no_bids"), ("queue", "queued")])
def test_with_nobody_to_ask_it_does_not_wait(sale: Sale, fallback: str, state: str) -> None:
    sale.open(bidders=(), fallback=fallback)
    assert sale.state() == state
    assert len(sale.shard.entries()) == (state == "queued")


# -- bids


@pytest.mark.parametrize(
    "bad",
    [{"eta": "nan"}, {"eta": "inf"}, {"eta": "-1"}, {"cost": "1e99"}, {"quality": "0x10"}, {"free": "-0"}, {"eta": "1" * 40}, {"eta": " 1"},
     {"kind": "maybe"}, {"kind": "refusal", "reason": "x" * 501}],
    ids=str,
)  # fmt: skip
def test_what_is_no_bid_is_refused_by_a_word(sale: Sale, bad: dict[str, Any]) -> None:
    sale.open()
    assert sale.bid("b1.1", **bad) == "invalid"
    assert sale.bids() == {}
    assert sale.audit() == ["open", "invalid"]


def test_who_was_not_asked_does_not_bid_nor_does_an_earlier_epoch(sale: Sale) -> None:
    sale.open()
    assert [sale.bid(who, eta=1) for who in ("stranger.9", "b1.0", "b1", "")] == ["foreign"] * 4
    assert sale.bid("b1.1", "never-opened") == "missing"
    assert sale.bids() == {}


def test_the_last_bid_before_the_close_counts_and_none_after_it(sale: Sale) -> None:
    sale.open()
    sale.bid("b1.1", eta=9)
    sale.bid("b1.1", eta=1)
    assert sale.bids()["b1.1"]["eta"] == 1
    sale.bid("b2.2", eta=2)
    sale.refuse("b3.3")
    assert (sale.state(), sale.record()["winner"]) == ("awarded", "b1.1")
    before = sale.bids()
    assert sale.bid("b2.2", eta=0) == "late"
    assert sale.bid("b2.2", eta=2) == "ok", "the same again: its reply was lost"
    assert sale.bids() == before
    assert sale.audit()[-1] == "late"


# -- deciding


def test_it_closes_with_the_last_answer_not_with_the_window(sale: Sale) -> None:
    sale.open()
    sale.all_bid()
    assert (sale.state(), sale.record()["winner"], sale.record()["ranking"]) == ("awarded", "b1.1", "b1.1 b2.2 b3.3")
    assert sale.mail("b1.1") == ["auction.call", "auction.award"]


@pytest.mark.parametrize(("fallback", "state"), [("none", "all_refused"), ("queue", "queued")])
def test_all_refuse(sale: Sale, fallback: str, state: str) -> None:
    sale.open(fallback=fallback, waiters="c-1")
    for bidder in THREE:
        sale.refuse(bidder)
    assert (sale.state(), sale.record()["reason"]) == (state, "all_refused")
    assert [one["state"] for one in sale.answers()] == (["all_refused"] if state == "all_refused" else [])


def test_silence_ends_with_the_window(sale: Sale) -> None:
    sale.open()
    assert int(sale.tend()) > 0
    assert sale.state() == "open"
    sale.refuse("b1.1")
    sale.pass_time()
    assert sale.tend() == ""
    assert (sale.state(), sale.record()["reason"]) == ("no_bids", "no_bids")
    assert sale.tend() == ""


def test_the_dead_are_not_waited_for(sale: Sale) -> None:
    sale.open()
    sale.bid("b2.2", eta=1)
    sale.tend("", "b1.1", "b3.3", "somebody.7")
    assert (sale.state(), sale.record()["winner"]) == ("awarded", "b2.2")


def test_a_bidder_that_died_since_does_not_win(sale: Sale) -> None:
    sale.open()
    sale.bid("b1.1", eta=1)
    sale.tend("", "b1.1")
    sale.bid("b2.2", eta=2)
    sale.bid("b3.3", eta=3)
    assert sale.record()["winner"] == "b2.2"


def test_the_weights_decide(sale: Sale) -> None:
    sale.open(weights='{"eta":1,"cost":2,"quality":0.5}')
    sale.bid("b1.1", eta=0, cost=10, quality=5)
    sale.bid("b2.2", eta=5, cost=0, quality=5)
    sale.bid("b3.3", eta=10, cost=5)
    # b1: 1 + 0 + 0, b2: .5 + 2 + 0, b3: 0 + 1, and quality is equal among those who say it
    assert sale.record()["ranking"] == "b2.2 b1.1 b3.3" or sale.record()["ranking"] == "b2.2 b3.3 b1.1"
    assert sale.record()["scores"].count("1.000000") == 2
    assert '"b2.2":2.500000' in sale.record()["scores"]


def test_equal_bids_go_to_the_one_with_more_room(sale: Sale) -> None:
    sale.open()
    for free, bidder in enumerate(THREE, 1):
        sale.bid(bidder, eta=1, free=free)
    assert sale.record()["ranking"] == "b3.3 b2.2 b1.1"


def test_ties_fall_evenly(sale: Sale) -> None:
    five = [f"bidder.{number}" for number in range(1, 6)]
    wins: Counter[str] = Counter()
    for number in range(1000):
        id = f"tie-{number}"
        sale.open(id, five)
        for bidder in five:
            sale.bid(bidder, id, eta=3, free=2)
        wins[sale.record(id)["winner"]] += 1
        sale.cancel(id)
    assert sorted(wins) == five
    assert all(150 <= count <= 250 for count in wins.values()), wins


def test_a_bid_below_the_least_score_does_not_win(sale: Sale) -> None:
    sale.open(min_score="0.6")
    sale.all_bid()
    assert sale.record()["ranking"] == "b1.1"
    sale.open("b", min_score="7")
    sale.all_bid("b")
    assert (sale.state("b"), sale.record("b")["reason"]) == ("no_bids", "no_acceptable_bid")


def test_failures_weigh_and_success_locks_nobody_out(sale: Sale) -> None:
    assert sale.finish(sale.working(), "b1.1") == "ok"
    assert sale.finish(sale.working("b"), "b1.1", "reject", "no") == "ok"
    for id, winner in (("c", "b2.2"), ("d", "b2.2")):
        sale.open(id)
        for bidder in THREE:
            sale.bid(bidder, id, eta=1, free=3 if bidder == winner else 1)
        assert sale.record(id)["ranking"].split()[2] == "b1.1", "one of two went wrong"
        assert sale.record(id)["winner"] == winner
        assert '"b1.1":-0.33' in sale.record(id)["scores"]


def test_the_initiator_scores_or_the_weights_do(sale: Sale) -> None:
    sale.open(scorer="c-1")
    sale.all_bid()
    assert sale.state() == "deciding"
    assert [one["state"] for one in sale.answers()] == ["nudge deciding"]
    assert sale.score({"b3.3": "nan"}) == "invalid"
    assert sale.score({"b3.3": "9", "b1.1": "-2.5", "stranger.1": "99"}) == "ok"
    assert (sale.state(), sale.record()["ranking"]) == ("awarded", "b3.3 b1.1")
    assert sale.score({"b1.1": "9"}) == "late"
    sale.open("b", scorer="c-1")
    sale.all_bid("b")
    sale.pass_time("b")
    sale.tend("b")
    assert sale.record("b")["winner"] == "b1.1"
    assert sale.score({}, "nothing") == "missing"


# -- award and confirmation


def test_a_confirmed_award_runs_at_once_with_its_winner(sale: Sale) -> None:
    sale.open(payload='{"n":1}', deadline=60_000)
    sale.all_bid()
    word, entry, task, attempt, failures, flat = sale.confirm()
    assert (word, task, attempt, failures) == ("ok", "a:work", 1, 0)
    record = sale.shard.record("a:work")
    assert (record["state"], record["agent"], record["to"], record["entry"]) == ("running", "b1.1", "b1.1", entry)
    assert record["deadline"] == sale.record()["deadline"]
    assert dict(zip(flat[::2], flat[1::2], strict=True))["payload"] == '{"n":1}'
    assert sale.state() == "working"
    assert sale.mail("b2.2") == ["auction.call", "auction.reject"]
    assert sale.mail("b1.1") == ["auction.call", "auction.award"]
    assert sale.shard.due() == {}
    # The claim loop finds the entry as well, and leaves it to whom it belongs.
    assert sale.shard.claim("b1.1", streams=["inbox:b1.1", "tasks:x"]) == []
    assert sale.shard.record("a:work") == record


def test_a_confirmation_again_gives_the_same(sale: Sale) -> None:
    got = sale.working()
    before = sale.shard.dump()
    assert sale.confirm() == got
    assert sale.shard.dump() == before


def test_only_the_winner_of_this_award_confirms(sale: Sale) -> None:
    sale.open()
    sale.all_bid()
    before = sale.shard.dump()
    assert sale.confirm("b2.2") == ["stale"]
    assert sale.confirm(award="7") == ["stale"]
    assert sale.shard.dump() == before
    sale.pass_time()
    sale.tend()
    assert sale.record()["winner"] == "b2.2"
    assert sale.confirm("b1.1", award="1") == ["stale"], "too late: it is another's"
    assert sale.confirm("b2.2")[0] == "ok"


def test_who_has_no_room_passes_it_on_at_once(sale: Sale) -> None:
    sale.open()
    sale.all_bid()
    assert sale.confirm(verb="decline") == ["declined"]
    assert (sale.state(), sale.record()["winner"]) == ("awarded", "b2.2")
    sale.tend("a", "b2.2")
    assert sale.record()["winner"] == "b3.3"


@pytest.mark.parametrize(("fallback", "state"), [("none", "no_bids"), ("queue", "queued")])
def test_behind_the_last_one_all_are_asked_once_more_and_once_only(sale: Sale, fallback: str, state: str) -> None:
    sale.open(fallback=fallback)
    sale.all_bid()
    sale.pass_time()
    sale.tend()
    sale.confirm(verb="decline")
    sale.confirm(verb="decline")
    assert (sale.state(), sale.record()["round"], sale.bids()) == ("open", "2", {})
    assert sale.record()["bidders"] == "b2.2 b3.3", "who was silent is not asked again"
    sale.all_bid(bidders=("b2.2", "b3.3"))
    sale.confirm(verb="decline")
    sale.confirm(verb="decline")
    assert (sale.state(), sale.record()["reason"]) == (state, "nobody_confirmed")
    assert [record["id"] for record in sale.shard.entries().values()] == (["a:work"] if state == "queued" else [])


def test_the_work_in_the_queue_ends_the_auction_as_well(sale: Sale) -> None:
    sale.open(fallback="queue", bidders=(), waiters="c-1")
    held = sale.shard.take("zed.9")
    assert sale.shard.settle("zed.9", complete(held)) == ["ok"]
    assert (sale.state(), sale.record()["result"]) == ("done", "1")
    assert [one["state"] for one in sale.answers()] == ["done"]
