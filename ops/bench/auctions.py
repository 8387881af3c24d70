"""Auctions among twenty bidders: from the last answer to the work's beginning, and the whole way to the result.

The bidders share one process with the client, so each figure holds what twenty agents cost one core.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from statistics import median

from ops.bench.figures import Figure
from ops.bench.process import Server
from ops.bench.size import Size
from streammesh import Agent, Auction, Bid, Call, Mesh

__all__ = ["measure"]

BIDDERS = 20


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """How long an auction takes, and its decision."""
    decided: list[float] = []
    whole: list[float] = []
    for turn in range(size.rounds):
        say(f"auctions, round {turn + 1} of {size.rounds}")
        with Server() as server:
            some, all_ = asyncio.run(_auctions(server.url, size.auctions))
        decided.append(median(some))
        whole.append(median(all_))
        say(f"    last answer to work {decided[-1]:.3g}, call to result {whole[-1]:.3g}")
    return [
        Figure.at_most(f"auction of {BIDDERS}: last answer to work, p50", "ms", decided, 30),
        Figure.shown(f"auction of {BIDDERS}: call to result, p50", "ms", whole),
    ]


def _bidder(name: str, eta: float) -> Agent:
    agent = Agent(name, slots=4)

    @agent.capability("noop")
    async def noop() -> None:
        return None

    @agent.bids("noop")
    async def bid(call: Call) -> Bid:
        return Bid(eta=eta)

    return agent


async def _auctions(url: str, count: int) -> tuple[Sequence[float], Sequence[float]]:
    """(ms from the last answer to the confirmation, ms from the call to the result) of ``count`` auctions, one by one."""
    agents = [_bidder(f"b{number}", number) for number in range(BIDDERS)]
    decided, whole = [], []
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(Mesh.connect(url))
        own = [await stack.enter_async_context(Mesh.connect(url, patience=None)) for _ in agents]
        working = [asyncio.create_task(agent.serve(one)) for agent, one in zip(agents, own, strict=True)]
        while sum(one.state == "ready" for one in await mesh.agents()) < BIDDERS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for _ in range(count):
            began = time.perf_counter()
            auction = await mesh.auction("noop")
            await auction.result(30)
            whole.append((time.perf_counter() - began) * 1000)
            decided.append(await _decided(auction))
        for agent in agents:
            agent.stop()
        await asyncio.gather(*working)
    return decided, whole


async def _decided(auction: Auction) -> float:
    """By the server's clock, in whole ms: the confirmation is what begins the work."""
    said = {line["type"]: datetime.fromisoformat(line["at"]) for line in await auction.audit()}
    return (said["confirmed"] - said["bid"]).total_seconds() * 1000
