"""The clock of a mesh under test: what waits for a long time is there in a moment, and no agent is harmed by it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from streammesh import Agent, Mesh, Retry, Run, TaskContext
from streammesh.errors import TaskExpired
from streammesh.movable import MeshClock
from streammesh.registry import Card
from streammesh.store import load_script
from streammesh.sweep import Sweep
from streammesh.sync import Mesh as SyncMesh
from tests.eventually import eventually
from tests.guide.conftest import serve  # noqa: F401 (a fixture)


@pytest.fixture(params=["memory", "server"])
def mesh_url(request: pytest.FixtureRequest, namespace: str) -> str:
    return f"memory://{namespace}" if request.param == "memory" else str(request.getfixturevalue("url"))


def sleeper() -> Agent:
    agent = Agent("sleeper", slots=8)

    @agent.workflow("hibernate")
    async def hibernate(run: Run, naps: int = 1) -> float:
        began = run.now()
        for _ in range(naps):
            await run.sleep(30 * 86_400)
        return (run.now() - began) / timedelta(days=1)

    @agent.capability("echo")
    async def echo(word: str) -> str:
        return word

    @agent.capability("later", retries=1)
    async def later(ctx: TaskContext) -> int:
        if ctx.attempt == 1:
            raise Retry(86_400)
        return ctx.attempt

    return agent


async def test_a_sleep_of_thirty_days_takes_a_moment(mesh: Mesh, mesh_clock: MeshClock, serve) -> None:  # noqa: F811
    await serve(sleeper())
    once, thrice = await mesh.start("hibernate"), await mesh.start("hibernate", naps=3)
    await mesh_clock.advance(days=31)
    assert 30 <= await once.result(5) < 30.1
    assert (await thrice.head()).state == "parked"
    await mesh_clock.advance(days=60)
    assert 90 <= await thrice.result(5) < 90.1


async def test_delayed_tasks_retries_and_deadlines_move(mesh: Mesh, mesh_clock: MeshClock, serve) -> None:  # noqa: F811
    delayed = await mesh.enqueue("echo", {"word": "hello"}, delay=86_400)
    late = await mesh.enqueue("echo", {"word": "late"}, deadline=3600)
    await mesh_clock.jump(hours=2)
    await serve(sleeper())
    again = await mesh.enqueue("later", {})
    with pytest.raises(TaskExpired):
        await late.result(10)
    await mesh_clock.advance(days=2)
    assert await delayed.result(5) == "hello"
    assert await again.result(5) == 2


async def test_agents_live_through_a_jump_and_notice_it(mesh: Mesh, mesh_clock: MeshClock, serve) -> None:  # noqa: F811
    id = await serve(sleeper())
    run = await mesh.start("hibernate")

    async def parked() -> bool:
        return (await run.head()).state == "parked"

    await eventually(parked, what="it sleeps")
    before = await mesh_clock.now()
    assert await mesh_clock.jump(days=40) >= before + timedelta(days=40)
    # Nobody else fires it.
    assert await run.result(10) >= 40
    agents = await mesh.agents()
    assert [agent.id for agent in agents] == [id]
    assert agents[0].age < 60
    members = await mesh.store.command("XRANGE", mesh.keys.members, "-", "+")
    assert "died" not in str(members)


async def test_for_agents_and_the_sweep_no_time_has_passed(mesh: Mesh, mesh_clock: MeshClock) -> None:
    sweep = Sweep(mesh.store, mesh.keys, mesh.registry)
    # Of an agent that does not beat meanwhile: what is looked at is what the move itself does.
    id, _ = await mesh.registry.join(Card("still", "boot", 30.0, (), {"state": "ready"}))
    await sweep.once([[]], [[]], 30.0, 15.0)
    await mesh_clock.jump(days=40)
    assert [(one.id, one.age < 10) for one in await mesh.agents()] == [(id, True)]
    await sweep.once([[]], [[]], 30.0, 15.0)
    # After a gap nothing would be taken from the dead for a lease.
    assert await mesh.store.command("HGET", f"{mesh.keys.prefix()}sweep", "grace") is None
    assert (await mesh.registry.expire()).dead == ()


async def test_it_goes_forward_only(mesh_clock: MeshClock) -> None:
    with pytest.raises(ValueError, match="forward only"):
        await mesh_clock.advance(days=-1)


async def test_who_opens_the_mesh_later_has_the_same_time(mesh: Mesh, mesh_clock: MeshClock) -> None:
    await mesh_clock.jump(days=365)
    async with Mesh.connect(mesh.url, namespace=mesh.namespace) as other:
        assert other.store.movable
        assert abs(await other.status.now_ms() / 1000 - (await mesh_clock.now()).timestamp()) < 5
        task = await other.enqueue("echo", {"word": "x"})
        assert (await task.record()).fields["enqueued_at"] > (await mesh_clock.now() - timedelta(days=1)).isoformat()
        await task.cancel()


def test_the_sync_client_can_move_it_too(namespace: str, url: str) -> None:
    with SyncMesh.connect(url, namespace=namespace) as mesh:
        clock = mesh.wait(MeshClock.take)
        task = mesh.enqueue("echo", {"word": "x"}, delay=86_400)
        mesh.wait(lambda m: clock.jump(days=2))
        assert mesh.wait(lambda m: m.timers.fire()).count == 1
        task.cancel()


async def test_a_mesh_whose_clock_was_not_taken_never_looks_at_it(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        assert not mesh.store.movable
        await mesh.store.command("SET", mesh.keys.clock(), 10**12)
        near = await mesh.status.now_ms()
        assert (await mesh.schedules._look("none"))[0] - near < 60_000
        await mesh.store.command("DEL", mesh.keys.clock())
    assert "clock'" not in load_script("due_fire").text


async def test_a_handler_that_waits_does_not_stop_time(mesh: Mesh, mesh_clock: MeshClock, serve) -> None:  # noqa: F811
    agent, go = sleeper(), asyncio.Event()

    @agent.capability("stubborn")
    async def stubborn() -> None:
        await go.wait()

    await serve(agent)
    task = await mesh.enqueue("stubborn")
    begun = await mesh_clock.now()
    assert await mesh_clock.advance(days=1, patience=0.05) - begun >= timedelta(days=1)
    go.set()
    await task.result(5)


async def test_the_deadline_of_a_vote_moves(mesh: Mesh, mesh_clock: MeshClock, serve) -> None:  # noqa: F811
    agent, go = Agent("sleepy", grace=0.1), asyncio.Event()

    @agent.votes()
    async def silent(ballot: object) -> None:
        await go.wait()

    await serve(agent)
    asked = asyncio.create_task(
        mesh.vote("tea or coffee?", ["tea", "coffee"], voters=["sleepy"], deadline=86_400, id="v")
    )

    async def is_open() -> bool:
        return bool(await mesh.votes.listed())

    await eventually(is_open, what="the vote is open")
    await mesh_clock.advance(days=2, patience=0.5)
    assert (await asyncio.wait_for(asked, 5)).reason == "deadline"
    go.set()
