"""What fails is tried again, in tenacity's words; the waiting is done in the server, so that no process need live through it."""

from __future__ import annotations

import time

import pytest
import tenacity

from streammesh import Agent, Mesh, Reject, Retry, State, TaskContext
from streammesh.errors import TaskDead, TaskFailed
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.guide.conftest import Serve


async def test_without_a_word_about_retries_a_failure_is_final(mesh: Mesh) -> None:
    agent = Agent("fragile")

    @agent.capability("break")
    async def fail() -> None:
        raise ValueError("no such luck")

    task = await mesh.enqueue("break")
    assert (await run_until_idle(mesh, agent)).attempts == 1
    with pytest.raises(TaskDead, match="ValueError: no such luck"):
        await task.result()


async def test_retries_is_how_many_more_attempts_there_are(mesh: Mesh) -> None:
    agent, attempts = Agent("stubborn"), []

    @agent.capability("try", retries=3)
    async def attempt(ctx: TaskContext) -> str:
        attempts.append((ctx.attempt, ctx.failures))
        if len(attempts) < 3:
            raise OSError("not yet")
        return "done"

    task = await mesh.enqueue("try")
    report = await run_until_idle(mesh, agent)
    assert attempts == [(1, 0), (2, 1), (3, 2)]
    assert (report.attempts, report.fired, await task.result()) == (3, 2, "done")


async def test_the_policy_is_tenacitys(mesh: Mesh) -> None:
    agent, seen = Agent("careful"), []
    policy = tenacity.Retrying(
        wait=tenacity.wait_fixed(60),
        stop=tenacity.stop_after_attempt(2),
        retry=tenacity.retry_if_exception_type(ConnectionError),
    )

    @agent.capability("fetch", retry=policy)
    async def fetch(url: str) -> None:
        seen.append(url)
        raise ConnectionError("down") if url == "flaky" else LookupError("404")

    flaky, wrong = await mesh.enqueue("fetch", url="flaky"), await mesh.enqueue("fetch", url="wrong")
    assert (await run_until_idle(mesh, agent)).dead == 2
    assert sorted(seen) == ["flaky", "flaky", "wrong"]
    for task, said in ((flaky, "ConnectionError: down"), (wrong, "LookupError: 404")):
        with pytest.raises(TaskDead, match=said):
            await task.result()


async def test_between_attempts_the_task_waits_in_the_server(mesh: Mesh, serve: Serve) -> None:
    agent = Agent("patient", lease=1.0)

    @agent.capability("fetch", retry=tenacity.Retrying(wait=tenacity.wait_fixed(60), stop=tenacity.stop_never))
    async def fetch() -> None:
        raise ConnectionError("down")

    await serve(agent)
    task = await mesh.enqueue("fetch")

    async def delayed() -> bool:
        return (await task.record()).state == State.DELAYED

    await eventually(delayed)
    record = await task.record()
    assert (record.error, record.fields["failures"]) == ("ConnectionError: down", "1")
    assert "Traceback" in record.fields["error_detail"]
    assert 55_000 < int(record.fields["due"]) - time.time() * 1000 < 65_000
    await task.cancel()


async def test_a_handler_may_say_when_to_come_back(mesh: Mesh) -> None:
    """That is no failure, and costs nothing of the budget."""
    agent, attempts = Agent("busy"), []

    @agent.capability("poll")
    async def poll(ctx: TaskContext) -> str:
        attempts.append((ctx.attempt, ctx.failures))
        if ctx.attempt < 4:
            raise Retry(after=3600, reason="not ready")
        return "ready"

    task = await mesh.enqueue("poll")
    await run_until_idle(mesh, agent)
    assert (await task.result(), attempts) == ("ready", [(1, 0), (2, 0), (3, 0), (4, 0)])


async def test_a_handler_may_reject_a_task_for_good(mesh: Mesh) -> None:
    """An answer, not an accident: no retries, and no dead letter."""
    agent = Agent("strict")

    @agent.capability("approve", retries=5)
    async def approve(amount: int) -> None:
        raise Reject(f"{amount} is too much")

    task = await mesh.enqueue("approve", amount=10_000)
    report = await run_until_idle(mesh, agent)
    assert (report.attempts, report.failed, await mesh.dead.counts()) == (1, 1, {})
    with pytest.raises(TaskFailed, match="10000 is too much"):
        await task.result()
