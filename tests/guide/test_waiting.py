"""Results are waited for, not polled for: and they wait for you."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh, State
from streammesh.errors import ResultTimeout, TaskNotFound
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.guide.conftest import Serve


def greeter() -> Agent:
    agent = Agent("greeter", lease=1.0)

    @agent.capability("greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    return agent


async def test_call_enqueues_and_waits(mesh: Mesh, serve: Serve) -> None:
    await serve(greeter())
    assert await mesh.call("greet", {"name": "Ada"}, timeout=5) == "hello Ada"
    assert await mesh.call("greet", name="Ada", timeout=5) == "hello Ada"


async def test_a_timeout_ends_the_waiting_and_not_the_task(mesh: Mesh) -> None:
    task = await mesh.enqueue("greet", name="Ada")
    with pytest.raises(ResultTimeout, match=task.id):
        await task.result(timeout=0.05)
    assert (await task.record()).state == State.QUEUED
    await run_until_idle(mesh, greeter())
    assert await task.result(timeout=5) == "hello Ada"


async def test_a_timeout_error_is_what_it_is(mesh: Mesh) -> None:
    with pytest.raises(TimeoutError):
        await mesh.call("greet", {"name": "Ada"}, timeout=0.05)
    await run_until_idle(mesh, greeter())


async def test_after_a_restart_the_client_asks_again_by_the_id(mesh: Mesh) -> None:
    async with Mesh.connect(mesh.url, namespace=mesh.namespace) as before:
        await before.enqueue("greet", {"name": "Ada"}, id="greet-1")
    await run_until_idle(mesh, greeter())
    async with Mesh.connect(mesh.url, namespace=mesh.namespace) as after:
        assert await after.task("greet-1").result(timeout=5) == "hello Ada"


async def test_many_may_wait_for_one_task(mesh: Mesh, serve: Serve) -> None:
    task = await mesh.enqueue("greet", name="Ada")
    async with Mesh.connect(mesh.url, namespace=mesh.namespace) as other:
        waiting = [asyncio.create_task(client.task(task.id).result(5)) for client in (mesh, mesh, other, other)]
        await eventually(lambda: _waiters(task.id, mesh, 2))
        await serve(greeter())
        assert await asyncio.gather(*waiting) == ["hello Ada"] * 4


async def test_waiting_goes_on_when_the_connection_breaks(mesh: Mesh, serve: Serve, redis: Redis) -> None:
    task = await mesh.enqueue("greet", name="Ada")
    waiting = asyncio.create_task(task.result(10))
    await eventually(lambda: _waiters(task.id, mesh, 1))
    await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await serve(greeter())
    assert await waiting == "hello Ada"


async def test_the_record_tells_the_whole_story(mesh: Mesh) -> None:
    task = await mesh.enqueue("greet", name="Ada")
    await run_until_idle(mesh, greeter())
    record = await task.record()
    assert (record.state, record.capability, record.payload, record.result) == (State.SUCCEEDED, "greet", {"name": "Ada"}, "hello Ada")  # fmt: skip
    assert (record.attempt, record.agent.partition(".")[0], record.error) == (1, "greeter", "")
    assert record.fields["enqueued_at"] <= record.fields["started_at"] <= record.fields["finished_at"]


async def test_an_unknown_id_is_an_error_at_once(mesh: Mesh) -> None:
    with pytest.raises(TaskNotFound, match="never enqueued"):
        await mesh.task("no-such-task").result(timeout=5)
    with pytest.raises(TaskNotFound):
        await mesh.task("no-such-task").record()
    assert await mesh.task("no-such-task").cancel() == "missing"


async def test_results_are_kept_as_long_as_the_capability_says(mesh: Mesh, redis: Redis) -> None:
    agent = Agent("forgetful")
    agent.capability("think", retention=0.05)(lambda: 1)
    agent.capability("learn", retention=3600)(lambda: 2)
    brief, long = await mesh.enqueue("think"), await mesh.enqueue("learn")
    await run_until_idle(mesh, agent)
    assert 3_500_000 < await redis.pttl(mesh.keys.task(long.id)) <= 3_600_000
    await eventually(lambda: _gone(redis, mesh.keys.task(brief.id)))
    with pytest.raises(TaskNotFound, match="longer ago than its retention"):
        await brief.result()


async def _waiters(id: str, mesh: Mesh, count: int) -> bool:
    return len((await mesh.task(id).record()).fields.get("waiters", "").split()) == count


async def _gone(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)
