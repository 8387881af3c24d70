"""Writes to Redis that commit with the run that asks for them: once, whatever is lost, and readable by anybody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh, MeshError, Run
from streammesh.errors import InvalidPayload, StepFailed
from tests.eventually import eventually
from tests.guide.conftest import Serve

pytestmark = pytest.mark.anyio


def shop() -> Agent:
    agent = Agent("shop", lease=2.0)

    @agent.workflow("sale")
    async def sale(run: Run, name: str) -> Any:
        left, _ = await run.redis(("INCRBY", run.key(name), -1), ("RPUSH", run.key(f"{name}-log"), run.id))
        await run.sleep(0.01)
        return [run.key(name), left, (await run.redis(("HSET", run.key(f"{name}-last"), "by", run.id)))[0]]

    @agent.workflow("wrong")
    async def wrong(run: Run, write: list[Any], first: list[Any] | None = None) -> Any:
        key = run.key("wrong")
        writes = [[key if word == "KEY" else word for word in one] for one in (first, write) if one]
        try:
            return await run.redis(*writes)
        except (InvalidPayload, StepFailed) as error:
            return f"{type(error).__name__}: {error}"

    return agent


async def test_a_run_changes_its_own_keys_once(mesh: Mesh, serve: Serve, redis: Redis) -> None:
    await serve(shop())
    run = await mesh.start("sale", name="tea", id="sale-1")
    key, left, new = await run.result(10)
    assert (left, new) == (-1, 1)
    assert await redis.get(key) == "-1"
    assert await redis.lrange(f"{key}-log", 0, -1) == ["sale-1"]
    assert await redis.hgetall(f"{key}-last") == {"by": "sale-1"}
    assert [record["result"] for record in await run.history() if record["what"] == "step"] == [[-1, 1], [1]]
    await redis.delete(key, f"{key}-log", f"{key}-last")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (["FLUSHALL", "KEY"], "InvalidPayload: run.redis cannot do FLUSHALL"),
        (["SET", "other", 1], "InvalidPayload: the key 'other' is not one that lives with the run"),
        (["SET", "KEY", {"a": 1}], "InvalidPayload: {'a': 1} is neither text nor a number"),
        (["HSET", "KEY", "odd"], "StepFailed: write 1 of 1"),
    ],
)
async def test_what_it_may_not_do(mesh: Mesh, serve: Serve, write: list[Any], said: str) -> None:
    await serve(shop())
    assert (await (await mesh.start("wrong", write=write)).result(10)).startswith(said)


async def test_a_key_of_another_type_is_found_before_anything_is_written(
    mesh: Mesh, serve: Serve, redis: Redis
) -> None:
    await serve(shop())
    kept = mesh.keys.user("wrong", mesh.keys.shard_of("typed"))
    await redis.rpush(kept, "x")
    other = kept.replace("wrong", "other")
    run = await mesh.start("wrong", first=["SET", other, "1"], write=["INCR", "KEY"], id="typed")
    assert "nothing was written: INCR wants a string" in await run.result(10)
    assert await redis.exists(other) == 0
    await redis.delete(kept)


async def test_what_nobody_waits_for_is_written_all_the_same(mesh: Mesh, serve: Serve, redis: Redis) -> None:
    agent = shop()

    @agent.workflow("last")
    async def last(run: Run) -> str:
        asyncio.get_running_loop().create_task(run.redis(("SET", run.key("last"), "word")))
        await asyncio.sleep(0)
        return run.key("last")

    await serve(agent)
    key = await (await mesh.start("last")).result(10)
    assert await redis.get(key) == "word"
    await redis.delete(key)


async def test_a_workflow_that_goes_on_for_ever_is_stuck_and_its_agent_is_not(mesh: Mesh, serve: Serve) -> None:
    agent = shop()

    @agent.workflow("mill")
    async def mill(run: Run) -> None:
        while True:  # noqa: ASYNC110 - it is the mistake
            await asyncio.sleep(0)

    await serve(agent)
    run = await mesh.start("mill")

    async def stuck() -> bool:
        return (await run.head()).state == "stuck"

    await eventually(stuck, timeout=30)
    assert "turns without waiting" in (error := (await run.head()).fields["error"])
    assert f"[{__file__}:" in error
    key, left, _ = await (await mesh.start("sale", name="after")).result(10)
    await mesh.store.command("DEL", key)
    await mesh.store.command("DEL", f"{key}-log")
    await mesh.store.command("DEL", f"{key}-last")
    assert left == -1
    await run.terminate()
    with pytest.raises(MeshError, match="terminated"):
        await run.result(5)
