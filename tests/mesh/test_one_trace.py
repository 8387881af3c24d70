"""A flow of everything there is, from one task: one tree without orphans, and one trace id. And what fell out of sight is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streammesh import Agent, Ballot, Mesh, Message, Run, TaskContext, messages
from streammesh.record import lineage
from streammesh.tracing import Traced, Traces
from tests.eventually import eventually
from tests.guide.conftest import Serve, serve
from tests.mesh.test_messages_scenarios import mesh

__all__ = ["mesh", "serve"]


async def test_a_flow_of_everything_is_one_tree_with_one_trace_id(mesh: Mesh, serve: Serve) -> None:
    agent = Agent("all")
    seen: dict[str, str] = {}

    def here(what: str) -> None:
        line = lineage.get()
        seen[what] = line.traceparent if line else "none"

    @agent.capability("begin")
    async def begin(ctx: TaskContext) -> list[Any]:
        here("task")
        await ctx.mesh.send("all", "note")
        await ctx.mesh.broadcast("note")
        await ctx.mesh.publish("news", 1)
        decision = await ctx.mesh.vote("now?", ["yes", "no"], deadline=5)
        collected = await ctx.mesh.collect("opinion", timeout=5)
        sold = await (await ctx.mesh.auction("work", window=2)).result(timeout=10)
        return [
            decision.winner,
            len(collected.responses),
            sold,
            await (await ctx.mesh.start("tell")).result(timeout=10),
        ]

    @agent.capability("work")
    async def work() -> str:
        here("auctioned")
        return "done"

    @agent.capability("leaf")
    async def leaf() -> None:
        here("leaf")

    @agent.on("note")
    async def note(message: Message) -> None:
        here("message")

    @agent.on("opinion")
    async def opinion(_: Message) -> int:
        here("collected")
        return 1

    @agent.votes()
    async def vote(_: Ballot) -> str:
        here("voter")
        return "yes"

    @agent.workflow("tell")
    async def tell(run: Run) -> Any:
        async def enqueue() -> str:
            here("step")
            return (await mesh.enqueue("leaf")).id

        def blocking() -> None:
            here("step in a thread")

        await run.step(enqueue)
        await run.step(blocking)
        await run.vote("and now?", ["yes", "no"], deadline=5)
        return await run.child("deeper")

    @agent.workflow("deeper")
    async def deeper(run: Run) -> str:
        await run.vote("still?", ["yes", "no"], deadline=5)
        return str(await run.call("work"))

    other = Agent("other")
    heard = asyncio.Event()

    @other.on("note")
    async def listen(_: Message) -> None:
        here("broadcast")
        heard.set()

    await serve(agent)
    await serve(other)
    async with mesh.subscribe("news", "desk") as subscription:
        assert await (await mesh.enqueue("begin", id="root")).result(timeout=30) == ["yes", 1, "done", "done"]
        async for _ in subscription:
            here("topic")
            break
    await heard.wait()
    await eventually(lambda: "leaf" in seen)
    assert seen.keys() == {
        "task", "message", "broadcast", "topic", "voter", "collected", "auctioned", "step", "step in a thread", "leaf",
    }  # fmt: skip
    (trace,) = {parent.split("-")[1] for parent in seen.values()}
    assert len(trace) == 32

    async def told() -> list[Traced]:
        """All of it, once the one who heard the broadcast is in it."""
        found = list((await Traces(mesh.store, mesh.keys).read("root")).walk())
        return found if any("other" in " ".join(one.agents) for one in found if one.kind == "message") else []

    found = await eventually(told)
    ids = {one.id for one in found}
    orphans = [(one.kind, one.name, one.causation) for one in found if one.id != "root" and one.causation not in ids]
    assert orphans == []
    assert {one.kind for one in found} >= {"task", "message", "run", "step", "vote", "auction"}
    (under,) = [one for one in found if one.kind == "step" and [child.name for child in one.children] == ["leaf"]]
    assert under.state == "succeeded"


async def test_an_agent_that_missed_broadcasts_is_told_how_many(
    mesh: Mesh, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent("late")
    heard: list[Any] = []

    @agent.on("broadcast.gap")
    async def gap(message: Message) -> None:
        heard.append(message)

    @agent.on("n")
    async def number(message: Message) -> None:
        heard.append(message.payload)

    await mesh.broadcast("n", -1)
    await serve(agent)
    await mesh.broadcast("n", 0)
    await eventually(lambda: heard == [0])
    monkeypatch.setattr(messages, "BROADCAST_KEPT", 10)
    # In one write, so that nothing is read in between.
    await mesh.store.command("MULTI", link=(link := mesh.store.link("burst")))
    for n in range(1, 401):
        entry = ("id", f"m{n}", "type", "n", "payload", n, "number", n + 2)
        await mesh.store.command("XADD", mesh.keys.broadcast, "MAXLEN", 10, "*", *entry, link=link)
    await mesh.store.command("EXEC", link=link)
    await eventually(lambda: len(heard) == 12)
    told = heard[1]
    assert told.type == "broadcast.gap"
    assert told.payload["lost"] == 390
    assert "390 broadcasts were dropped" in told.payload["error"]
    assert heard[2:] == list(range(391, 401))
