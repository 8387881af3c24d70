"""Claiming under odd circumstances: fewer slots than shards, a pause that comes together with work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh
from tests.eventually import eventually


@asynccontextmanager
async def working(mesh: Mesh, agent: Agent) -> AsyncIterator[None]:
    serving = asyncio.create_task(agent.serve(mesh))
    await eventually(lambda: agent.serving and agent.serving.tending.sweeps > 0)
    try:
        yield
    finally:
        agent.stop()
        await serving


@pytest.fixture(params=[1, 3])
async def mesh(request: pytest.FixtureRequest, url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace, shards=request.param) as mesh:
        yield mesh


async def test_one_slot_serves_any_number_of_shards_without_waiting_between_them(mesh: Mesh) -> None:
    agent = Agent("one-armed", slots=1)
    at_once = []

    @agent.capability("step")
    async def step(n: int) -> int:
        at_once.append(agent.serving.claims.running if agent.serving else 0)
        return n

    async with working(mesh, agent):
        async with asyncio.timeout(2):
            for n in range(30):
                assert await mesh.call("step", {"n": n}, timeout=5) == n
        results = [result async for result in mesh.map("step", [{"n": n} for n in range(60)])]
    assert results == list(range(60))
    assert set(at_once) == {1}


async def test_who_has_no_free_slot_keeps_nothing_from_others(mesh: Mesh) -> None:
    """With several shards the reads of the other ones are under way when the last slot is taken."""
    go_on = asyncio.Event()

    def make(name: str) -> Agent:
        agent = Agent(name, slots=1)

        @agent.capability("long")
        async def long() -> None:
            await go_on.wait()

        @agent.capability("short")
        async def short() -> str:
            return name

        return agent

    busy, free = make("busy"), make("free")
    async with Mesh.connect(mesh.url, namespace=mesh.namespace) as other:
        for round in range(3):
            go_on.clear()
            async with working(mesh, busy):
                await eventually(lambda: busy.serving and all(busy.serving.claims._empty))
                long = await mesh.enqueue("long")
                await eventually(lambda: busy.serving and busy.serving.claims.held)
                async with working(other, free):
                    tasks = [await mesh.enqueue("short", id=f"short-{round}-{n}") for n in range(12)]
                    assert {await task.result(2) for task in tasks} == {"free"}
                    go_on.set()
                    await long.result(5)


async def test_work_that_comes_together_with_a_pause_waits_and_nobody_spins(mesh: Mesh, url: str) -> None:
    agent = Agent("patient", lease=0.5)
    ran = []

    @agent.capability("rest")
    async def rest(n: int) -> None:
        ran.append(n)

    async with Redis.from_url(url, decode_responses=True) as redis:

        async def scripts() -> int:
            said = str((await redis.info("commandstats")).get("cmdstat_evalsha"))
            return int(re.findall(r"'calls': (\d+)", said)[0])

        async with working(mesh, agent):
            assert agent.serving
            await eventually(lambda: agent.serving and all(agent.serving.claims._empty))
            stream = mesh.keys.tasks("rest")
            # All in one transaction: the agent's read is still blocked on the stream when the entry comes.
            async with redis.pipeline(transaction=True) as together:
                together.hset(mesh.keys.cap("rest"), "paused", "test")
                together.xadd(mesh.keys.control, {"type": "pause", "capability": "rest"})
                together.xadd(stream, {"payload": '{"n": 1}'})
                await together.execute()
            before, sweeps = await scripts(), agent.serving.tending.sweeps
            await eventually(lambda: agent.serving and agent.serving.tending.sweeps > sweeps + 8)
            assert await scripts() - before < 150 * mesh.keys.shards
            begun = len(ran)
            await mesh.resume("rest")
            await eventually(lambda: ran == [1])
            await eventually(lambda: _length(redis, stream, 0))
            assert begun <= 1


async def _length(redis: Redis, stream: str, expected: int) -> bool:
    return int(await redis.xlen(stream)) == expected
