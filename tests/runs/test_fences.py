"""Whoever lost a run writes nothing, however much it knows: the fence of a commit is the agent and the attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streammesh import Agent, Mesh, Run
from streammesh.activate import KNOWN_BY
from streammesh.commands import Effect
from streammesh.journal import Commit
from tests.eventually import eventually

pytestmark = pytest.mark.anyio


class Clerk:
    """An agent whose one workflow is in the middle of a local step until it is let go, and writes then."""

    def __init__(self, name: str, lease: float = 1.0) -> None:
        self.agent = Agent(name, lease=lease)
        self.going, self.gate = asyncio.Event(), asyncio.Event()
        #: How often its step began.
        self.began = 0

        async def hold() -> str:
            self.began += 1
            self.going.set()
            await self.gate.wait()
            return name

        @self.agent.workflow("held")
        async def held(run: Run) -> list[Any]:
            done = await run.step(hold)
            return [done, (await run.redis(("INCR", run.key("n"))))[0]]

    @contextlib.asynccontextmanager
    async def serving(self, mesh: Mesh) -> AsyncIterator[None]:
        work = asyncio.create_task(self.agent.serve(mesh))
        try:
            yield
        finally:
            self.gate.set()
            self.agent.stop()
            await work


@pytest.mark.parametrize("shards", [1, 3])
async def test_an_executor_whose_heartbeat_is_lost_while_it_works_is_fenced(
    url: str, namespace: str, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """c12: its loop works and its connections hold, only the beats do not come through; its journal is as long as the other's."""
    async with Mesh.connect(url, namespace=namespace, shards=shards) as mesh:
        late, other = Clerk("late"), Clerk("other")
        async with late.serving(mesh):
            run = await mesh.start("held", id="r")
            await asyncio.wait_for(late.going.wait(), 10)
            serving = late.agent.serving
            assert serving
            with monkeypatch.context() as patch:
                patch.setattr(serving._pulse, "_beat", lambda card: None)
                # It would take its own run back, and be another attempt.
                serving.wakes.draining = True
                serving.wakes.wake()
                async with other.serving(mesh):
                    await asyncio.wait_for(other.going.wait(), 15)
                    before = await run.history()
                    assert len(before) == 1
                    # Both are in the same step, and know the same journal: nothing but the fence tells them apart.
                    late.gate.set()
                    await eventually(lambda: serving.activator.fenced == 1, timeout=10)
                    assert await run.history() == before
                    assert await mesh.store.command("EXISTS", mesh.keys.user("n", mesh.keys.shard_of("r"))) == 0
                    other.gate.set()
                    assert await run.result(10) == ["other", 1]
                    patch.undo()

                    async def back() -> bool:
                        return len(await mesh.registry.agents()) == 2

                    await eventually(back, timeout=10)
        assert (late.began, other.began) == (1, 1)
        journal = await run.history()
        assert [record["what"] for record in journal] == ["start", "step", "step", "end"]
        head = await run.head()
        assert (head.state, head.fields["attempt"]) == ("succeeded", "2")


@pytest.mark.parametrize("then", ["continue", "park", "succeeded", "failed", "stuck", "again"])
@pytest.mark.parametrize("zombie", ["another agent, in this attempt", "this agent, in an attempt before", "both"])
async def test_a_commit_by_anybody_else_changes_nothing(url: str, namespace: str, zombie: str, then: str) -> None:
    """It knows the journal to its end, and has never said this before."""
    async with Mesh.connect(url, namespace=namespace) as mesh:
        clerk = Clerk("clerk", lease=10.0)
        async with clerk.serving(mesh):
            run = await mesh.start("held", id="r")
            await asyncio.wait_for(clerk.going.wait(), 10)
            head = (await run.head()).fields
            texts = await mesh.store.command("LRANGE", mesh.keys.run("r") + ":journal", 0, -1)
            agent, attempt = head["agent"], int(head["attempt"])
            agent = "ghost.99" if zombie != "this agent, in an attempt before" else agent
            attempt = attempt - 1 if zombie != "another agent, in this attempt" else attempt
            value = '"stolen"' if then == "succeeded" else '["go"]' if then == "park" else ""
            step = b'{"what":"step","path":"hold.0","name":"hold","after":0,"result":"stolen","at":"2026-01-01T00:00:00.000Z"}'
            effects = [
                Effect("timer", "t.0", (1,)),
                Effect("redis", "redis.0", (0, 1, 2, "INCR", mesh.keys.user("n"))),
                Effect("status", "", ('{"by":"a ghost"}',)),
            ]
            last = texts[-1].encode()[-KNOWN_BY:]
            commit = Commit("r", attempt, 424242, len(texts), last, then, value, [step], effects)
            assert await mesh.journal.commit(agent, commit) == ["fenced"]
            assert (await run.head()).fields == head
            assert await mesh.store.command("LRANGE", mesh.keys.run("r") + ":journal", 0, -1) == texts
            assert await mesh.store.command("EXISTS", mesh.keys.user("n"), mesh.keys.due()) == 0
            clerk.gate.set()
            assert await run.result(10) == ["clerk", 1]
