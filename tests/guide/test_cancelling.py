"""A task tells how far it has come, and stops when it is asked to."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streammesh import Agent, Mesh, State, TaskContext
from streammesh.errors import TaskCancelled
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.guide.conftest import Serve


async def test_progress_is_seen_while_the_task_runs(mesh: Mesh, serve: Serve) -> None:
    agent, go_on = Agent("copyist", lease=1.0), asyncio.Event()

    @agent.capability("copy")
    async def copy(pages: int, ctx: TaskContext) -> str:
        ctx.progress(3, total=pages, note="the third page")
        await go_on.wait()
        return "copied"

    await serve(agent)
    task = await mesh.enqueue("copy", pages=10)

    async def progress() -> object:
        return (await task.record()).progress

    assert await eventually(progress) == {"done": 3, "total": 10, "note": "the third page"}
    go_on.set()
    assert await task.result(5) == "copied"


async def test_progress_may_come_from_a_thread(mesh: Mesh, serve: Serve) -> None:
    agent, go_on = Agent("copyist", lease=1.0), threading.Event()

    @agent.capability("copy")
    def copy(ctx: TaskContext) -> None:
        for page in range(100):
            ctx.progress(page)
        go_on.wait(10)

    await serve(agent)
    task = await mesh.enqueue("copy")

    async def all_told() -> bool:
        return (await task.record()).progress == {"done": 99}

    await eventually(all_told)
    go_on.set()
    await task.result(5)


async def test_a_queued_task_is_cancelled_at_once(mesh: Mesh) -> None:
    agent, begun = Agent("copyist"), []
    agent.capability("copy")(lambda: begun.append(1))
    task = await mesh.enqueue("copy")
    assert await task.cancel(by="ada") == "ok"
    await run_until_idle(mesh, agent)
    with pytest.raises(TaskCancelled, match="cancelled by ada"):
        await task.result()
    assert begun == []


async def test_a_delayed_task_is_cancelled_at_once(mesh: Mesh) -> None:
    task = await mesh.enqueue("copy", delay=3600)
    assert await task.cancel() == "ok"
    assert await task.cancel() == "closed cancelled"
    assert await mesh.timers.waiting() == 0


async def test_whoever_waits_is_told(mesh: Mesh) -> None:
    task = await mesh.enqueue("copy")
    waiting = asyncio.create_task(task.result(5))

    async def waits() -> bool:
        return "waiters" in (await task.record()).fields

    await eventually(waits)
    await task.cancel()
    with pytest.raises(TaskCancelled):
        await waiting


async def test_a_running_async_handler_is_cancelled_where_it_awaits(mesh: Mesh, serve: Serve) -> None:
    agent, begun, cleaned_up = Agent("copyist", lease=1.0), asyncio.Event(), asyncio.Event()

    @agent.capability("copy", retries=5)
    async def copy() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    id = await serve(agent)
    task = await mesh.enqueue("copy")
    await begun.wait()
    assert await task.cancel() == f"running {id}"
    with pytest.raises(TaskCancelled):
        await task.result(5)
    assert cleaned_up.is_set()
    assert (await task.record()).attempt == 1


async def test_a_thread_looks_now_and_then_whether_it_should_stop(mesh: Mesh, serve: Serve) -> None:
    agent, begun, stopped = Agent("copyist", lease=1.0), threading.Event(), threading.Event()

    @agent.capability("copy")
    def copy(ctx: TaskContext) -> None:
        begun.set()
        while not ctx.cancel_requested:
            pass
        stopped.set()

    await serve(agent)
    task = await mesh.enqueue("copy")
    await eventually(begun.is_set)
    await task.cancel()
    with pytest.raises(TaskCancelled):
        await task.result(5)
    await eventually(stopped.is_set)


async def test_what_is_finished_stays_finished(mesh: Mesh) -> None:
    agent = Agent("copyist")
    agent.capability("copy")(lambda: "done")
    task = await mesh.enqueue("copy")
    await run_until_idle(mesh, agent)
    assert await task.cancel() == "closed succeeded"
    assert (await task.record()).state == State.SUCCEEDED
