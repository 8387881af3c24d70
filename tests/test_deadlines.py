"""Deadlines, where they are decided: by the timer that ran out, not by a second look at a clock that moves a little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streammesh import Agent, Mesh, State
from streammesh.errors import TaskExpired
from tests.eventually import eventually


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


async def test_a_task_expires_though_the_servers_clock_seems_to_be_behind(mesh: Mesh) -> None:
    """The agent's idea of the server's clock moves with every beat: found by a chaos run, where such tasks died as failed."""
    agent = Agent("ann")

    @agent.capability("ponder")
    async def ponder() -> None:
        assert agent.serving
        agent.serving.performer.offset -= 5000
        await asyncio.Event().wait()

    serving = asyncio.create_task(agent.serve(mesh))
    task = await mesh.enqueue("ponder", {}, deadline=0.5)
    with pytest.raises(TaskExpired, match="while it ran"):
        await task.result(timeout=10)
    agent.stop()
    await serving


@pytest.mark.parametrize("deadline", ["99999999999999.5", "9e99", "99999999999999x"])
async def test_a_raw_deadline_that_is_no_whole_number_is_a_dead_letter_or_has_passed(mesh: Mesh, deadline: str) -> None:
    agent = Agent("ann")

    @agent.capability("ponder")
    async def ponder() -> None: ...

    await mesh.store.command("XADD", mesh.keys.tasks("ponder"), "*", "payload", "{}", "deadline", deadline, "id", "odd")
    serving = asyncio.create_task(agent.serve(mesh))

    async def ended() -> bool:
        return (
            bool(await mesh.store.command("EXISTS", mesh.keys.task("odd")))
            and (await mesh.tasks.record("odd")).state.final
        )

    await eventually(ended)
    assert (await mesh.tasks.record("odd")).state in (State.DEAD, State.EXPIRED)
    agent.stop()
    await serving
