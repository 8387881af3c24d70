"""An agent without room hands on what was meant for it, unless it is meant for that very agent."""

from __future__ import annotations

import asyncio

from streammesh import Agent, Mesh
from tests.eventually import eventually
from tests.guide.conftest import Serve


def digger(name: str, go: asyncio.Event) -> Agent:
    agent = Agent(name, lease=1.0, slots=1)

    @agent.capability("dig")
    async def dig(deep: bool = False) -> str:
        if deep:
            await go.wait()
        return name

    return agent


async def busy(mesh: Mesh, *ids: str) -> None:
    async def full() -> bool:
        return {one.id for one in await mesh.peers("dig", fresh=True) if one.full} == set(ids)

    await eventually(full, what=f"{ids} are full")


async def test_a_task_for_a_name_goes_to_another_agent_with_room(mesh: Mesh, serve: Serve) -> None:
    go = asyncio.Event()
    ann = await serve(digger("ann", go))
    await serve(digger("bob", go))
    deep = await mesh.enqueue("dig", deep=True, to="ann")
    await busy(mesh, ann)
    named, strict = await mesh.enqueue("dig", to="ann"), await mesh.enqueue("dig", to=ann)
    assert await named.result(timeout=10) == "bob"
    assert (await named.record()).fields["refused"] == ann
    assert (await named.record()).attempt == 1
    record = await strict.record()
    assert (record.state, record.fields["to"]) == ("queued", ann), "what is for an id waits for that agent"
    go.set()
    assert await deep.result(timeout=10) == "ann"
    assert await strict.result(timeout=10) == "ann"


async def test_without_room_anywhere_it_goes_to_the_queue(mesh: Mesh, serve: Serve) -> None:
    go, free = asyncio.Event(), asyncio.Event()
    ann = await serve(digger("ann", go))
    bob = await serve(digger("bob", free))
    deep = [await mesh.enqueue("dig", deep=True, to=one) for one in (ann, bob)]
    await busy(mesh, ann, bob)
    task = await mesh.enqueue("dig", affinity="customer-7")
    first = (await task.record()).fields["to"]

    async def open_to_all() -> bool:
        return "to" not in (await task.record()).fields

    await eventually(open_to_all)
    assert (await task.record()).fields["refused"] == first
    free.set()
    assert await task.result(timeout=10) == "bob", "whoever has room first takes it"
    go.set()
    assert {await one.result(timeout=10) for one in deep} == {"ann", "bob"}


async def test_where_nobody_else_offers_it_the_task_stays(mesh: Mesh, serve: Serve) -> None:
    go = asyncio.Event()
    ann = await serve(digger("ann", go))
    deep = await mesh.enqueue("dig", deep=True)
    await busy(mesh, ann)
    task = await mesh.enqueue("dig", to="ann")
    other = await mesh.enqueue("dig", delay=0.8)

    async def fired() -> bool:
        return (await other.record()).state == "queued"

    await eventually(fired, what="time enough to hand it on")
    assert (await task.record()).fields["to"] == ann
    go.set()
    assert [await one.result(timeout=10) for one in (deep, task, other)] == ["ann"] * 3
