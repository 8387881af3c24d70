"""Auctions: work goes to the agent that bids best, and runs in a slot that it has reserved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streammesh import Agent, Auction, Bid, Call, Mesh, Refusal, errors
from tests.eventually import eventually
from tests.guide.conftest import Serve


def summarizer(name: str, eta: float, cost: float = 1.0, *, slots: int = 4) -> Agent:
    agent = Agent(name, slots=slots, lease=2.0)

    @agent.capability("summarize")
    async def summarize(text: str) -> str:
        return f"{name}: {text}"

    @agent.bids("summarize")
    async def bid(call: Call) -> Bid:
        assert call.payload["text"]
        assert call.free <= call.slots
        return Bid(eta=eta, cost=cost)

    return agent


async def test_the_best_bid_wins_and_its_agent_does_the_work(mesh: Mesh, serve: Serve) -> None:
    fast = await serve(summarizer("fast", eta=1, cost=9))
    await serve(summarizer("cheap", eta=9, cost=1))
    auction = await mesh.auction("summarize", text="hello", score={"eta": 1})
    assert await auction.result(timeout=10) == "fast: hello"
    record = await auction.record()
    assert (record.state, record.winner, record.bids[0].score) == ("done", fast, 1.0)
    assert [one.kind for one in record.bids] == ["bid", "bid"]
    # The work is a task like any other.
    assert (await mesh.task(record.task).record()).agent == fast


async def test_the_initiator_may_score_by_a_function_of_its_own(mesh: Mesh, serve: Serve) -> None:
    await serve(summarizer("fast", eta=1, cost=9))
    await serve(summarizer("cheap", eta=9, cost=1))
    auction = await mesh.auction("summarize", text="hello", score=lambda bids: [-(one.cost or 0) for one in bids])
    assert await auction.result(timeout=10) == "cheap: hello"


async def test_a_scorer_that_fails_does_not_hold_the_auction_up(mesh: Mesh, serve: Serve) -> None:
    await serve(summarizer("only", eta=1))
    auction = await mesh.auction("summarize", text="hello", score=lambda bids: [1 / 0 for _ in bids], confirm=0.2)
    assert await auction.result(timeout=10) == "only: hello"


async def test_an_agent_without_a_function_bids_by_its_free_slots(mesh: Mesh, serve: Serve) -> None:
    for name, slots in (("small", 1), ("large", 8)):
        agent = Agent(name, slots=slots, lease=2.0)
        agent.capability("whoami")(answering(name))
        await serve(agent)
    assert await (await mesh.auction("whoami")).result(timeout=10) == "large"


def answering(name: str) -> Any:
    async def whoami() -> str:
        return name

    return whoami


async def test_a_refusal_has_a_reason_and_closes_the_auction_at_once(mesh: Mesh, serve: Serve) -> None:
    agent = summarizer("picky", eta=1)
    agent.bidders["summarize"] = lambda call: Refusal("too short")
    await serve(agent)
    auction = await mesh.auction("summarize", text="x", window=60, fallback="none")
    with pytest.raises(errors.NoBids, match="all_refused"):
        await auction.result(timeout=5)
    (answer,) = (await auction.record()).bids
    assert (answer.kind, answer.reason) == ("refusal", "too short")


async def test_a_bid_that_is_none_counts_as_a_refusal(mesh: Mesh, serve: Serve) -> None:
    agent = summarizer("odd", eta=1)
    agent.bidders["summarize"] = lambda call: Bid(eta=float("nan"))
    await serve(agent)
    auction = await mesh.auction("summarize", text="x", window=60, fallback="none")
    with pytest.raises(errors.NoBids):
        await auction.result(timeout=5)
    assert "invalid" in [line["type"] for line in await auction.audit()]


async def test_what_nobody_wants_waits_in_the_queue_unless_it_is_not_to(mesh: Mesh, serve: Serve) -> None:
    queued = await mesh.auction("summarize", text="later")
    nobody = await mesh.auction("summarize", text="never", fallback="none")
    with pytest.raises(errors.NoBids):
        await nobody.result(timeout=5)
    assert (await queued.record()).state == "queued"
    await serve(summarizer("late", eta=1))
    assert await queued.result(timeout=10) == "late: later"


async def test_the_same_id_is_the_same_auction(mesh: Mesh, serve: Serve) -> None:
    await serve(summarizer("only", eta=1))
    first = await mesh.auction("summarize", text="x", id="doc-1")
    again = await mesh.auction("summarize", text="x", id="doc-1")
    assert (first.created, again.created) == (True, False)
    assert await first.result(timeout=10) == await again.result(timeout=10)
    with pytest.raises(errors.PayloadConflict):
        await mesh.auction("summarize", text="y", id="doc-1")


async def test_only_those_who_are_named_are_asked(mesh: Mesh, serve: Serve) -> None:
    await serve(summarizer("fast", eta=1))
    await serve(summarizer("slow", eta=9))
    auction = await mesh.auction("summarize", text="x", bidders=["slow"])
    assert await auction.result(timeout=10) == "slow: x"
    with pytest.raises(errors.UnknownAgent, match="nobody"):
        await mesh.auction("summarize", text="x", bidders=["nobody"])


async def test_cancelling_before_and_after_the_confirmation(mesh: Mesh, serve: Serve) -> None:
    begun, never = asyncio.Event(), asyncio.Event()
    agent = Agent("slow", slots=1, lease=2.0)

    @agent.capability("wait")
    async def wait() -> None:
        begun.set()
        await never.wait()

    await serve(agent)
    running = await mesh.auction("wait")
    await begun.wait()
    full = await mesh.auction("wait", window=60)
    await eventually(lambda: state(full, "queued"))
    assert [one.reason for one in (await full.record()).bids] == ["full"]
    assert await full.cancel() == "ok"
    assert (await running.cancel()).startswith("running slow.")
    for auction in (running, full):
        with pytest.raises(errors.AuctionCancelled):
            await auction.result(timeout=10)
        assert (await auction.cancel()) == "closed cancelled"


async def state(auction: Auction, wanted: str) -> bool:
    return (await auction.record()).state == wanted


async def test_work_that_fails_ends_the_auction_with_its_error(mesh: Mesh, serve: Serve) -> None:
    agent = Agent("grumpy", lease=2.0)

    @agent.capability("sulk")
    async def sulk() -> None:
        raise ValueError("no")

    await serve(agent)
    with pytest.raises(errors.AuctionFailed, match="ValueError: no"):
        await (await mesh.auction("sulk")).result(timeout=10)
    for letter in [letter async for letter in mesh.dead.letters("sulk")]:
        await mesh.dead.remove(letter)


@pytest.mark.parametrize(
    "options",
    [{"window": 0}, {"confirm": -1}, {"fallback": "maybe"}, {"score": {"speed": 1}}, {"score": {"eta": -1}},
     {"min_score": float("nan")}, {"deadline": 0}, {"id": "{x}"}, {"id": "x" * 121}],
    ids=str,
)  # fmt: skip
async def test_what_cannot_work_is_said_before_anything_is_sent(mesh: Mesh, options: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError, match=r"expected|known|allowed"):
        await mesh.auction("summarize", {"text": "x"}, **options)
    assert await mesh.auctions.unfinished() == []


async def test_an_auction_that_never_was(mesh: Mesh) -> None:
    with pytest.raises(errors.AuctionNotFound):
        await mesh.auctions.record("never")
    with pytest.raises(errors.AuctionNotFound):
        await mesh.auctions.result("never", timeout=5)


def test_who_bids_must_offer_the_capability_and_bids_once() -> None:
    agent = Agent("odd")
    agent.bids("x")(lambda call: Bid())
    with pytest.raises(errors.ConfigError, match="already"):
        agent.bids("x")(lambda call: Bid())
    with pytest.raises(errors.ConfigError, match="one parameter"):
        agent.bids("y")(lambda: Bid())
