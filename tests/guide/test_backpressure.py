"""An agent that does not keep up with its mail: its senders are told, and others are asked."""

from __future__ import annotations

import asyncio

import pytest

from streammesh import Agent, Mesh, Message
from streammesh.errors import Backpressure
from tests.eventually import eventually
from tests.guide.conftest import Serve


def clerk(name: str, go: asyncio.Event) -> Agent:
    agent = Agent(name, lease=1.0)

    @agent.on("note")
    async def note(_: Message) -> str:
        await go.wait()
        return name

    return agent


async def test_a_sender_is_told_when_the_mail_of_an_agent_is_full(mesh: Mesh, serve: Serve) -> None:
    go, free = asyncio.Event(), asyncio.Event()
    free.set()
    id = await serve(clerk("slow", go))
    mesh.boundaries.mail = 3
    for _ in range(3):
        await mesh.send(id, "note")
    with pytest.raises(Backpressure, match=rf"3 messages wait for {id}") as error:
        await mesh.send("slow", "note")
    assert (error.value.length, 0.1 <= error.value.retry_after <= 30) == (3, True)
    with pytest.raises(Backpressure):
        await mesh.request("note", timeout=5)
    await serve(clerk("quick", free))

    async def both() -> bool:
        return len([one for one in await mesh.peers(fresh=True) if one.willing]) == 2

    await eventually(both)
    assert {await mesh.request("note", timeout=5) for _ in range(10)} == {"quick"}, (
        "surely nothing was done: another is asked"
    )
    go.set()

    async def sent() -> bool:
        try:
            return bool(await mesh.send(id, "note"))
        except Backpressure:
            return False

    await eventually(sent, what="there is room again")


async def test_an_evicted_agent_stops_and_its_work_goes_to_others(mesh: Mesh, serve: Serve) -> None:
    go = asyncio.Event()

    def worker(name: str) -> Agent:
        agent = Agent(name, lease=20.0, grace=0.1)

        @agent.capability("work")
        async def work() -> str:
            await go.wait() if name == "hung" else None
            return name

        return agent

    hung = worker("hung")
    id = await serve(hung)
    task = await mesh.enqueue("work")

    async def begun() -> bool:
        return (await task.record()).state == "running"

    await eventually(begun)
    await serve(worker("other"))
    await mesh.registry.evict(id)
    assert await task.result(timeout=5) == "other", "long before the lease has ended"
    await eventually(lambda: hung.serving is None, what="it has stopped")
    assert id not in [one.id for one in await mesh.agents()]
    events = await mesh.store.command("XRANGE", mesh.keys.members, "-", "+")
    told = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in events]
    assert [(one["type"], one["reason"]) for one in told if one["agent"] == id and one["type"] != "changed"] == [
        ("joined", "new"), ("died", "evicted"),
    ]  # fmt: skip
