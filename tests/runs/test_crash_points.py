"""Crash points of what a commit does besides its records: a workflow's own writes happen once, whatever is lost."""

from __future__ import annotations

import asyncio

import pytest

from streammesh import Agent, Mesh, Run
from streammesh.store import Link
from tests.eventually import eventually
from tests.runs.test_crashes import Losses

pytestmark = pytest.mark.anyio


def make_agent() -> Agent:
    agent = Agent("clerk", lease=1.0)

    @agent.workflow("count")
    async def count(run: Run, steps: int) -> list[int]:
        return [(await run.redis(("INCR", run.key(run.id)), ("RPUSH", run.key("log"), n)))[0] for n in range(steps)]

    return agent


@pytest.mark.parametrize("what", ["request", "reply"])
@pytest.mark.parametrize("script", ["run_commit", "task_claim"])
async def test_writes_happen_once_though_a_call_is_lost(
    url: str, namespace: str, script: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th call of the script, for each n until the run makes fewer of them."""
    for number in range(1, 13):
        name = f"{namespace}-{number}"
        async with Mesh.connect(url, namespace=name) as mesh:
            losses = Losses(mesh, script, number, what)
            with monkeypatch.context() as patch:
                patch.setattr(Link, "call", losses.losing)
                agent = make_agent()
                serving = asyncio.create_task(agent.serve(mesh))
                try:
                    assert await (await mesh.start("count", steps=3, id="r")).result(30) == [1, 2, 3]
                finally:
                    agent.stop()
                    await serving
            assert await mesh.store.command("LRANGE", mesh.keys.user("log"), 0, -1) == ["0", "1", "2"]
            steps = [record for record in await mesh.run("r").history() if record["what"] == "step"]
            assert [record["result"] for record in steps] == [[1, 1], [2, 2], [3, 3]]
        if not losses.lost:
            assert number > 1, "the script was never called"
            return


async def test_an_agent_that_lost_its_run_writes_nothing(url: str, namespace: str) -> None:
    """c12: taken over in the middle, by an operator's hand here, its commit is fenced together with its writes."""
    agent = Agent("clerk", lease=5.0)
    going, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        going.set()
        await go.wait()

    @agent.workflow("held")
    async def held(run: Run) -> None:
        await run.step(hold)
        await run.redis(("INCR", run.key("n")))

    async with Mesh.connect(url, namespace=namespace) as mesh:
        serving = asyncio.create_task(agent.serve(mesh))
        run = await mesh.start("held", id="r")
        await asyncio.wait_for(going.wait(), 10)
        await run.pause()
        go.set()
        await eventually(lambda: agent.serving is not None and agent.serving.activator.fenced == 1, timeout=10)
        assert await mesh.store.command("EXISTS", mesh.keys.user("n")) == 0
        await run.resume()
        await run.result(10)
        assert await mesh.store.command("GET", mesh.keys.user("n")) == "1"
        agent.stop()
        await serving
