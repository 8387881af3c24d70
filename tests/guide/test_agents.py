"""Agents come and go; the work stays."""

from __future__ import annotations

import asyncio

from streammesh import Agent, Bid, Call, Mesh, Message, State, TaskContext
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.guide.conftest import Serve


def clerk(begun: list[int] | None = None, go_on: asyncio.Event | None = None, **options: float) -> Agent:
    agent = Agent("clerk", slots=int(options.get("slots", 4)), lease=1.0, grace=options.get("grace", 30.0))

    @agent.capability("file")
    async def file(n: int = 0) -> int:
        if begun is not None:
            begun.append(n)
        if go_on:
            await go_on.wait()
        return n

    return agent


async def test_an_agent_shows_itself_in_the_registry(mesh: Mesh, serve: Serve) -> None:
    id = await serve(clerk())
    (info,) = await mesh.agents()
    assert (info.id, info.name, info.state, info.slots, info.busy) == (id, "clerk", "ready", 4, 0)
    assert info.capabilities == ("file",)
    assert info.age < 1


async def test_two_agents_of_one_name_never_share_an_id(mesh: Mesh, serve: Serve) -> None:
    first, second = await serve(clerk()), await serve(clerk())
    assert first != second
    assert [first.rpartition(".")[0], second.rpartition(".")[0]] == ["clerk", "clerk"]
    assert {one.id for one in await mesh.agents()} == {first, second}
    assert await asyncio.gather(*(mesh.call("file", {"n": n}, timeout=5) for n in range(20))) == list(range(20))


async def test_an_agent_that_was_here_before_gets_a_new_id(mesh: Mesh) -> None:
    agent, tasks = clerk(), [await mesh.enqueue("file")]
    await agent.serve(mesh, burst=True)
    tasks.append(await mesh.enqueue("file"))
    await agent.serve(mesh, burst=True)
    assert len({(await task.record()).agent for task in tasks}) == 2


async def test_a_burst_ends_when_nothing_is_left(mesh: Mesh) -> None:
    """For cron, CI and tests: do what waits, then go home."""
    begun: list[int] = []
    await mesh.enqueue_many("file", [{"n": n} for n in range(50)])
    await clerk(begun).serve(mesh, burst=True)
    assert sorted(begun) == list(range(50))
    assert await mesh.agents() == []


async def test_nobody_begins_what_is_paused_and_what_runs_is_finished(mesh: Mesh, serve: Serve) -> None:
    begun: list[int] = []
    go_on = asyncio.Event()
    await serve(clerk(begun, go_on))
    running = await mesh.enqueue("file", n=1)
    await eventually(lambda: begun == [1])
    assert await mesh.pause("file")
    assert not await mesh.pause("file")
    await eventually(lambda: _paused(mesh))
    waiting = await mesh.enqueue("file", n=2)
    go_on.set()
    assert await running.result(5) == 1
    assert begun == [1]
    assert (await waiting.record()).state == State.QUEUED
    assert await mesh.resume("file")
    assert await waiting.result(5) == 2


async def test_a_pause_outlives_the_agents(mesh: Mesh) -> None:
    await mesh.pause("file")
    task = await mesh.enqueue("file", n=1)
    assert (await run_until_idle(mesh, clerk())).attempts == 0
    await mesh.resume("file")
    await run_until_idle(mesh, clerk())
    assert await task.result() == 1


async def test_who_drains_finishes_what_runs_and_hands_back_the_rest(mesh: Mesh, serve: Serve) -> None:
    """Nothing is lost, and no attempt is burnt: what had not begun begins elsewhere as if nothing had been."""
    begun: list[int] = []
    go_on = asyncio.Event()
    leaving = clerk(begun, go_on, slots=2)
    id = await serve(leaving)
    await mesh.enqueue_many("file", [{"n": n} for n in range(10)], ids=[f"file-{n}" for n in range(10)])
    await eventually(lambda: len(begun) == 2)
    assert await mesh.registry.drain(id) == id
    await eventually(lambda: _state(mesh, id, "draining"))
    go_on.set()
    await eventually(lambda: _state(mesh, id, ""))
    assert len(begun) == 2
    records = [await mesh.task(f"file-{n}").record() for n in range(10)]
    assert sorted(record.state for record in records) == [State.QUEUED] * 8 + [State.SUCCEEDED] * 2
    await run_until_idle(mesh, clerk())
    assert [await mesh.task(f"file-{n}").result() for n in range(10)] == list(range(10))
    again = [await mesh.task(f"file-{n}").record() for n in range(10)]
    assert not any("failures" in record.fields or "deaths" in record.fields for record in again)


async def test_what_does_not_finish_in_its_grace_is_handed_back_too(mesh: Mesh) -> None:
    begun: list[int] = []
    leaving = clerk(begun, asyncio.Event(), grace=0.05)
    serving = asyncio.create_task(leaving.serve(mesh))
    task = await mesh.enqueue("file", n=1)
    await eventually(lambda: begun)
    leaving.stop()
    await serving
    record = await task.record()
    assert (record.state, record.fields.get("failures"), record.fields.get("deaths")) == (State.QUEUED, None, None)
    await run_until_idle(mesh, clerk())
    assert await task.result() == 1


async def _paused(mesh: Mesh) -> bool:
    return any(one.paused for one in await mesh.status.capabilities())


async def _state(mesh: Mesh, id: str, expected: str) -> bool:
    return next((one.state for one in await mesh.agents() if one.id == id), "") == expected


async def test_a_handler_knows_which_agent_it_works_for(mesh: Mesh, serve: Serve) -> None:
    agent, called = Agent("clerk", lease=2.0), []

    @agent.capability("sign")
    def sign(ctx: TaskContext | None = None) -> str:
        return ctx.agent if ctx else "nobody"

    @agent.bids("sign")
    async def bid(call: Call) -> Bid:
        called.append(call.bidder)
        return Bid()

    @agent.on("who")
    async def who(message: Message) -> str:
        return message.to

    id = await serve(agent)
    assert await mesh.call("sign", {}, timeout=10) == id
    assert await mesh.request("who", to="clerk", timeout=10) == id
    assert (await mesh.collect("who", timeout=10)).responses == ((id, id),)
    assert await (await mesh.auction("sign")).result(timeout=10) == id
    assert called == [id]
