"""A run is an `async def` that no crash can stop: its steps are journaled, and whichever agent is alive goes on with it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from streammesh import Mesh, Run
from streammesh.errors import RunFailed, StepFailed
from tests.guide.conftest import Serve
from tests.guide.library import library, reaches, whats

# -- a first workflow


async def test_a_workflow_calls_capabilities_and_returns(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("quadruple")
    async def quadruple(run: Run, n: int) -> int:
        doubled = await run.call("double", n=n)
        return int(await run.call("double", n=doubled))

    await serve(agent)
    run = await mesh.start("quadruple", n=3, id="first")
    assert await run.result(10) == 12
    assert await whats(run) == ["start", "call", "done", "call", "done", "end"]


async def test_its_journal_reads_like_a_story(mesh: Mesh, serve: Serve, redis: Redis) -> None:
    agent = library()

    @agent.workflow("once")
    async def once(run: Run) -> int:
        return int(await run.call("double", n=1))

    await serve(agent)
    run = await mesh.start("once", id="story")
    await run.result(10)
    lines = await redis.lrange(mesh.keys.run("story") + ":journal", 0, -1)
    assert lines[1] == '{"what":"call","path":"double.0","name":"double","payload":{"n":1},"after":0}'
    assert str(lines[2]).startswith('{"what":"done","of":"double.0","result":2,"at":"')


async def test_steps_run_side_by_side_with_plain_gather(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("all")
    async def everything(run: Run, numbers: list[int]) -> list[int]:
        return list(await asyncio.gather(*(run.call("double", n=n) for n in numbers)))

    await serve(agent)
    assert await (await mesh.start("all", numbers=[1, 2, 3])).result(10) == [2, 4, 6]


async def test_map_bounds_how_many_are_open_at_once(mesh: Mesh, serve: Serve) -> None:
    agent = library()
    now, most = 0, 0

    @agent.capability("count")
    async def count(n: int) -> int:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1
        return n

    @agent.workflow("counting")
    async def counting(run: Run) -> list[int]:
        return await run.map("count", [{"n": n} for n in range(9)], limit=3)

    await serve(agent)
    assert await (await mesh.start("counting")).result(10) == list(range(9))
    assert 1 <= most <= 3


async def test_a_side_effect_here_is_a_local_step_and_happens_once(mesh: Mesh, serve: Serve) -> None:
    agent, written = library(), list[str]()

    @agent.workflow("write")
    async def write(run: Run) -> int:
        await run.step(written.append, "a line")
        return int(await run.call("double", n=len(written)))

    await serve(agent)
    run = await mesh.start("write")
    assert await run.result(10) == 2
    assert written == ["a line"]
    assert "step" in await whats(run)


async def test_a_step_that_fails_raises_where_it_is_awaited(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("try")
    async def attempt(run: Run) -> str:
        try:
            await run.call("refuse")
        except StepFailed as error:
            return f"told: {error}"
        return "never"

    await serve(agent)
    assert "told: " in await (await mesh.start("try")).result(10)


async def test_what_the_workflow_raises_is_told_to_whoever_waits(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("fail")
    async def fail(run: Run) -> None:
        raise LookupError("no such book")

    await serve(agent)
    with pytest.raises(RunFailed, match="LookupError: no such book"):
        await (await mesh.start("fail")).result(10)


# -- time and chance


async def test_a_sleep_is_kept_by_the_server_and_not_by_a_process(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("nap")
    async def nap(run: Run, seconds: float) -> float:
        began = run.now()
        await asyncio.sleep(seconds)
        return (run.now() - began).total_seconds()

    await serve(agent)
    assert await (await mesh.start("nap", seconds=0.05)).result(10) >= 0.05
    long = await mesh.start("nap", seconds=86_400 * 30)
    await reaches(long, "parked")
    assert list((await long.head()).open) == ["timer.0"]
    await long.terminate()


async def test_until_a_point_in_time(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("until")
    async def until(run: Run, at: str) -> bool:
        await run.sleep_until(datetime.fromisoformat(at))
        return run.now() >= datetime.fromisoformat(at)

    await serve(agent)
    soon = datetime.now(UTC) + timedelta(seconds=0.1)
    assert await (await mesh.start("until", at=soon.isoformat())).result(10) is True


async def test_a_timeout_takes_the_call_back(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("impatient")
    async def impatient(run: Run) -> str:
        try:
            async with asyncio.timeout(0.05):
                await run.call("nobody-does-this")
        except TimeoutError:
            return "gave up"
        return "never"

    await serve(agent)
    run = await mesh.start("impatient", id="impatient")
    assert await run.result(10) == "gave up"
    assert (await mesh.task("impatient:nobody-does-this.0").record()).state == "cancelled"


async def test_chance_is_the_same_in_every_replay(mesh: Mesh, serve: Serve) -> None:
    agent, seen = library(), []

    @agent.workflow("dice")
    async def dice(run: Run) -> None:
        seen.append((run.random().random(), str(run.uuid()), run.now()))
        await run.signal("again")

    await serve(agent)
    run = await mesh.start("dice")
    await reaches(run, "parked")
    await run.signal("again")
    await run.result(10)
    assert len(seen) == 2
    assert seen[0] == seen[1]


# -- signals


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
async def test_a_signal_may_come_before_or_after_it_is_waited_for(mesh: Mesh, serve: Serve, early: bool) -> None:
    agent = library()

    @agent.workflow("approval")
    async def approval(run: Run) -> Any:
        return await run.signal("approved")

    run = await mesh.start("approval")
    if early:
        await run.signal("approved", {"by": "ada"})
    await serve(agent)
    if not early:
        await reaches(run, "parked")
        await run.signal("approved", {"by": "ada"})
    assert await run.result(10) == {"by": "ada"}


async def test_a_start_may_bring_the_first_signals_and_an_id_makes_them_count_once(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("collect")
    async def collect(run: Run, count: int) -> list[Any]:
        return [await run.signal("item") for _ in range(count)]

    run = await mesh.start("collect", count=3, signals=[("item", 1)])
    assert await run.signal("item", 2, id="two") == "ok"
    assert await run.signal("item", 2, id="two") == "duplicate"
    await run.signal("item", 3)
    await serve(agent)
    assert await run.result(10) == [1, 2, 3]
    assert await run.signal("item", 4) == "closed"


async def test_waiting_for_a_signal_may_end(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("patience")
    async def patience(run: Run) -> str:
        try:
            return str(await run.signal("approved", timeout=0.05))
        except TimeoutError:
            return "nobody approved"

    await serve(agent)
    assert await (await mesh.start("patience")).result(10) == "nobody approved"
