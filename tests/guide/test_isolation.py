"""Where a handler runs: on the loop, in a thread, or in a process that can be killed; and how long it may take."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
import tenacity

from streammesh import Agent, Mesh, TaskContext
from streammesh.errors import ConfigError, TaskDead
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.guide.conftest import Serve

heavy = Agent("heavy", lease=1.0)  # on the module, because another process must be able to import its functions


@heavy.capability("square", isolation="process")
def square(n: int) -> dict[str, int]:
    return {"squared": n * n, "pid": os.getpid()}


@heavy.capability("spin", isolation="process", timeout=0.3)
def spin() -> None:
    while True:
        pass


async def test_async_handlers_share_the_loop(mesh: Mesh) -> None:
    agent, together = Agent("light", slots=3), asyncio.Barrier(3)

    @agent.capability("meet")
    async def meet() -> str:
        await together.wait()
        return threading.current_thread().name

    tasks = [await mesh.enqueue("meet") for _ in range(3)]
    await run_until_idle(mesh, agent)
    assert [await task.result() for task in tasks] == [threading.current_thread().name] * 3


async def test_plain_functions_run_in_threads(mesh: Mesh) -> None:
    agent, together = Agent("middling", slots=3), threading.Barrier(3)

    @agent.capability("meet")
    def meet() -> str:
        together.wait(5)
        return threading.current_thread().name

    tasks = [await mesh.enqueue("meet") for _ in range(3)]
    await run_until_idle(mesh, agent)
    assert len({await task.result() for task in tasks}) == 3


async def test_heavy_ones_run_in_processes(mesh: Mesh) -> None:
    task = await mesh.enqueue("square", n=12)
    await run_until_idle(mesh, heavy)
    result = await task.result()
    assert result["squared"] == 144
    assert result["pid"] != os.getpid()


async def test_a_timeout_kills_the_process(mesh: Mesh) -> None:
    task = await mesh.enqueue("spin")
    await run_until_idle(mesh, heavy)
    with pytest.raises(TaskDead, match=r"TimeoutError: spin took longer than 0\.3 s"):
        await task.result()


async def test_a_timeout_cancels_an_async_handler(mesh: Mesh) -> None:
    agent, ended = Agent("light"), []

    @agent.capability("dream", timeout=0.05)
    async def dream() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = await mesh.enqueue("dream")
    await run_until_idle(mesh, agent)
    with pytest.raises(TaskDead, match="took longer"):
        await task.result()
    assert ended == [True]


async def test_a_timeout_gives_a_thread_up_but_cannot_stop_it(mesh: Mesh, serve: Serve) -> None:
    """The outcome is recorded in time; the slot is free again only when the thread has ended."""
    agent, go_on, ended = Agent("middling", slots=1, lease=1.0), threading.Event(), threading.Event()

    @agent.capability("block", timeout=0.05)
    def block() -> None:
        go_on.wait(10)
        ended.set()

    await serve(agent)
    with pytest.raises(TaskDead, match="took longer"):
        await mesh.call("block", timeout=5)
    assert not ended.is_set()
    assert agent.serving
    assert agent.serving.claims.running == 1
    go_on.set()
    await eventually(lambda: agent.serving and agent.serving.claims.running == 0)


async def test_a_timeout_is_a_failure_like_any_other_and_may_be_retried(mesh: Mesh) -> None:
    agent = Agent("light")

    @agent.capability("dream", timeout=0.05, retries=2)
    async def dream(ctx: TaskContext) -> str:
        if ctx.attempt < 3:
            await asyncio.Event().wait()
        return "awake"

    task = await mesh.enqueue("dream")
    await run_until_idle(mesh, agent)
    assert await task.result() == "awake"


async def test_a_busy_loop_does_not_make_an_agent_look_dead(mesh: Mesh, serve: Serve) -> None:
    """The heart beats in a thread of its own, also while a careless handler blocks the loop for five leases."""
    agent, sweeper, attempts = Agent("careless", lease=0.5), Agent("sweeper", lease=0.5), []

    @agent.capability("compute")
    async def compute(ctx: TaskContext) -> None:
        attempts.append(ctx.attempt)
        time.sleep(2.5)

    sweeper.capability("nothing")(lambda: None)

    async with Mesh.connect(mesh.url, namespace=mesh.namespace) as other:

        def elsewhere() -> None:
            asyncio.run(_serve_elsewhere(sweeper, mesh.url, mesh.namespace))

        watching = threading.Thread(target=elsewhere)
        watching.start()
        await serve(agent)
        task = await other.enqueue("compute")
        await task.result(10)
        sweeper.stop()
        await asyncio.to_thread(watching.join)
        feed = await other.store.command("XRANGE", other.keys.members, "-", "+")
    assert [flat for _, flat in feed if "died" in flat] == []
    assert attempts == [1]


async def _serve_elsewhere(agent: Agent, url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        await agent.serve(mesh)


def test_what_cannot_work_is_said_when_it_is_declared() -> None:
    agent = Agent("confused")
    with pytest.raises(ConfigError, match="cannot run inline"):
        agent.capability("a", isolation="inline")(lambda: None)
    with pytest.raises(ConfigError, match="is not known"):
        agent.capability("b", isolation="fiber")(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="both given"):
        agent.capability("c", retries=1, retry=tenacity.Retrying())(lambda: None)
