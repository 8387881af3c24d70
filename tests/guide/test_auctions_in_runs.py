"""Auctions that a run opens: journaled like any step, and taken back with it."""

from __future__ import annotations

import asyncio

import pytest

from streammesh import Agent, Bid, Mesh, Run, errors
from streammesh.runcauses import RunCauses
from tests.eventually import eventually
from tests.guide.conftest import Serve


def editor(name: str, eta: float) -> Agent:
    agent = Agent(name, lease=2.0)

    @agent.capability("edit")
    async def edit(text: str) -> str:
        return f"{name}: {text}"

    @agent.bids("edit")
    async def bid(call: object) -> Bid:
        return Bid(eta=eta)

    return agent


def publisher() -> Agent:
    agent = Agent("publisher", lease=2.0)

    @agent.workflow("publish")
    async def publish(run: Run, text: str) -> list[str]:
        first = await run.auction("edit", text=text, score={"eta": 1})
        both = await asyncio.gather(run.auction("edit", text="a"), run.auction("edit", text="b", bidders=["slow"]))
        return [first, *both]

    @agent.workflow("hope")
    async def hope(run: Run) -> str:
        try:
            return str(await run.auction("nothing", fallback="none"))
        except errors.NoBids as error:
            return str(error)

    @agent.workflow("impatient")
    async def impatient(run: Run) -> str:
        try:
            async with asyncio.timeout(0.3):
                return str(await run.auction("nothing"))
        except TimeoutError:
            return "gave up"

    return agent


async def test_the_outcome_comes_back_into_the_run(mesh: Mesh, serve: Serve) -> None:
    for agent in (editor("fast", 1), editor("slow", 9), publisher()):
        await serve(agent)
    run = await mesh.start("publish", text="x", id="p-1")
    assert await run.result(10) == ["fast: x", "fast: a", "slow: b"]
    told = [record["what"] for record in await run.history()]
    assert told.count("auction") == 3
    assert (await mesh.auctions.record("p-1:edit.0")).fields["correlation"] == "p-1"
    assert await mesh.auctions.unfinished() == []


async def test_that_nobody_bids_is_an_error_with_a_type(mesh: Mesh, serve: Serve) -> None:
    await serve(publisher())
    assert await (await mesh.start("hope")).result(10) == "nobody took it: no_bids"


async def test_an_auction_that_is_given_up_is_taken_back(mesh: Mesh, serve: Serve) -> None:
    await serve(publisher())
    run = await mesh.start("impatient", id="p-2")
    assert await run.result(10) == "gave up"
    assert (await mesh.auctions.record("p-2:nothing.0")).state == "cancelled"
    assert await mesh.auctions.unfinished() == []


async def test_a_run_that_is_cancelled_takes_its_auctions_along(mesh: Mesh, serve: Serve) -> None:
    agent = Agent("patient", lease=2.0)

    @agent.workflow("wait")
    async def wait(run: Run) -> None:
        await run.auction("nothing")

    await serve(agent)
    run = await mesh.start("wait", id="p-3")

    async def opened() -> bool:
        return len(await mesh.auctions.unfinished()) == 1

    await eventually(opened)

    async def told() -> bool:
        return (
            "waits for auction nothing (p-3:nothing.0)" in (await RunCauses(mesh.store, mesh.keys).explain("p-3")).text
        )

    await eventually(told)
    await run.cancel()
    with pytest.raises(errors.RunCancelled):
        await run.result(10)
    assert (await mesh.auctions.record("p-3:nothing.0")).state == "cancelled"
