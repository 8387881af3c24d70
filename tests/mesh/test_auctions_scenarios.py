"""Auctions under trouble: silence, refusals, many at once, and kill -9 of winner, initiator and executor.

Agents that are killed are processes of their own. The profile: a lease of one second, a confirmation of 300 ms.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from streammesh import Agent, Auction, Bid, Call, Mesh, Refusal, errors
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

LEASE, CONFIRM = 1.0, 0.3

#: The arguments of an agent's process: url, namespace, name, eta, what it does with an award and with the work.
APP = """
import asyncio, os, signal, sys
from streammesh import Agent, Bid, Run

url, namespace, name, eta, award, work = sys.argv[1:]
agent = Agent(name, slots=1, lease=1.0, grace=1.0)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

@agent.capability("paint")
async def paint(n: int = 0) -> str:
    if work == "die":
        die()
    return name

@agent.bids("paint")
async def bid(call):
    return Bid(eta=float(eta))

if award == "die":
    @agent.on("auction.award")
    async def awarded(message):
        die()

@agent.workflow("gallery")
async def gallery(run: Run) -> str:
    return await run.auction("paint", score={"eta": 1})

agent.run(url, namespace=namespace)
"""

INITIATOR = """
import asyncio, sys
from streammesh import Mesh

async def main() -> None:
    async with Mesh.connect(sys.argv[1], namespace=sys.argv[2]) as mesh:
        await mesh.auction("paint", id="left-alone", window=1.0, fallback="none")
        print("opened", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@asynccontextmanager
async def here(mesh: Mesh, *agents: Agent) -> AsyncIterator[None]:
    """Agents at work in this process, each on connections of its own."""
    async with AsyncExitStack() as stack:
        own = [
            await stack.enter_async_context(Mesh.connect(mesh.url, namespace=mesh.namespace, patience=None))
            for _ in agents
        ]
        working = [asyncio.create_task(agent.serve(one)) for agent, one in zip(agents, own, strict=True)]
        await ready(mesh, {agent.name for agent in agents})
        yield
        for agent in agents:
            agent.stop()
        await asyncio.gather(*working)


async def ready(mesh: Mesh, names: set[str]) -> None:
    async def are() -> bool:
        return names <= {one.name for one in await mesh.agents() if one.state == "ready"}

    await eventually(are, 20, what="the agents are ready")


@asynccontextmanager
async def elsewhere(
    mesh: Mesh, *agents: tuple[str, float, str, str]
) -> AsyncIterator[dict[str, subprocess.Popen[bytes]]]:
    """Agents (name, eta, award, work) as processes; what is left of them is killed."""
    began = {
        name: subprocess.Popen([sys.executable, "-c", APP, mesh.url, mesh.namespace, name, str(eta), award, work])
        for name, eta, award, work in agents
    }
    try:
        await ready(mesh, set(began))
        yield began
    finally:
        for process in began.values():
            process.kill()
            process.wait()


async def at(auction: Auction, *kinds: str) -> list[float]:
    """When these things happened last, in seconds."""
    said = {line["type"]: datetime.fromisoformat(line["at"]).timestamp() for line in await auction.audit()}
    return [said[kind] for kind in kinds]


def painter(name: str, answer: Any, slots: int = 1) -> Agent:
    agent = Agent(name, slots=slots, lease=LEASE)

    @agent.capability("paint")
    async def paint(n: int = 0) -> str:
        return name

    @agent.bids("paint")
    async def bid(call: Call) -> Any:
        return await answer(call) if callable(answer) else answer

    return agent


async def test_silence_ends_in_no_bids_when_the_window_does(mesh: Mesh) -> None:
    async def never(call: Call) -> Bid:
        await asyncio.Event().wait()
        raise AssertionError

    async with here(mesh, *(painter(f"p{number}", never) for number in range(3))):
        auction = await mesh.auction("paint", window=0.7, fallback="none")
        # Nobody waits for it here: the agents close it.
        await eventually(lambda: ended(auction))
        opened, closed = await at(auction, "open", "no_bids")
        assert 0.7 <= closed - opened <= 0.8
        with pytest.raises(errors.NoBids):
            await auction.result(5)


async def ended(auction: Auction) -> bool:
    return (await auction.record()).ended


async def test_when_all_refuse_it_ends_with_the_last_refusal(mesh: Mesh) -> None:
    async with here(mesh, *(painter(f"p{number}", Refusal("no")) for number in range(5))):
        auction = await mesh.auction("paint", window=30, fallback="none")
        with pytest.raises(errors.NoBids, match="all_refused"):
            await auction.result(5)
        refused, closed = await at(auction, "refusal", "all_refused")
        assert closed - refused <= 0.1


async def test_a_hundred_auctions_among_twenty_slots_never_meet_in_one(mesh: Mesh) -> None:
    running, most, done = Counter[str](), Counter[str](), Counter[int]()

    def single(name: str) -> Agent:
        agent = Agent(name, slots=1, lease=5.0)

        @agent.capability("paint")
        async def paint(n: int) -> str:
            running[name] += 1
            most[name] = max(most[name], running[name])
            await asyncio.sleep(0.02)
            running[name] -= 1
            done[n] += 1
            return name

        return agent

    agents = [single(f"p{number}") for number in range(20)]
    async with here(mesh, *agents):
        auctions = await asyncio.gather(*(mesh.auction("paint", n=n) for n in range(100)))
        await asyncio.gather(*(auction.result(60) for auction in auctions))
        assert max(most.values()) == 1, "two at once in one slot"
        assert sorted(done.elements()) == list(range(100))
        again = await asyncio.gather(*(mesh.auction("paint", n=n) for n in range(20)))
        await asyncio.gather(*(auction.result(60) for auction in again))
        confirmed = [line for one in [*auctions, *again] for line in await one.audit() if line["type"] == "confirmed"]
        assert len(confirmed) >= 20
        # No slot was lost on the way.
        await eventually(lambda: all(one.serving is not None and one.serving.claims.free == 1 for one in agents))


async def test_a_winner_that_is_killed_before_it_confirms(mesh: Mesh) -> None:
    async with elsewhere(mesh, ("best", 1, "die", ""), ("second", 2, "", ""), ("third", 3, "", "")):
        auction = await mesh.auction("paint", confirm=CONFIRM)
        assert await auction.result(10) == "second"
        awards = [
            datetime.fromisoformat(line["at"]).timestamp()
            for line in await auction.audit()
            if line["type"] == "awarded"
        ]
        assert len(awards) == 2
        assert awards[1] - awards[0] <= CONFIRM + 0.3


async def test_a_winner_that_is_killed_at_work(mesh: Mesh) -> None:
    async with elsewhere(mesh, ("best", 1, "", "die"), ("second", 2, "", ""), ("third", 3, "", "")):
        auction = await mesh.auction("paint", confirm=CONFIRM)
        assert await auction.result(20) == "second"
        record = await mesh.task((await auction.record()).task).record()
        assert (record.attempt, record.fields["deaths"]) == (2, "1")


async def test_an_initiator_that_is_killed(mesh: Mesh) -> None:
    async def never(call: Call) -> Bid:
        await asyncio.Event().wait()
        raise AssertionError

    async with here(mesh, painter("silent", never), painter("good", Bid(eta=1))):
        initiator = subprocess.Popen(
            [sys.executable, "-c", INITIATOR, mesh.url, mesh.namespace], stdout=subprocess.PIPE
        )
        assert initiator.stdout is not None
        await asyncio.to_thread(initiator.stdout.readline)
        initiator.send_signal(signal.SIGKILL)
        initiator.wait()
        initiator.stdout.close()
        began = time.monotonic()
        assert await mesh.auctions._tasks.results.result("auction left-alone", 10) == "good"
        assert time.monotonic() - began <= 1.0 + 2.0


async def test_a_run_whose_executor_and_winner_are_killed(mesh: Mesh) -> None:
    bidders = [("best", 1.0, "", "die"), ("second", 2.0, "", ""), ("third", 3.0, "", "")]
    async with elsewhere(mesh, *bidders) as processes:
        run = await mesh.start("gallery", id="g-1")

        async def begun() -> str:
            head = await run.head()
            return head.fields.get("agent", "") if head.open else ""

        executor = (await eventually(begun)).partition(".")[0]
        processes[executor].kill()
        assert await run.result(30) in ("second", "third")
        assert [record["what"] for record in await run.history()].count("auction") == 1
        assert (await mesh.auctions.record("g-1:paint.0")).state == "done"
