"""Keys of a mesh that hold something else: whoever needs one is told which, and everything beside it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh
from streammesh.errors import MeshError, TaskDead
from tests.eventually import eventually


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url, decode_responses=True) as redis:
        yield redis


def worker(name: str = "worker") -> Agent:
    agent = Agent(name, lease=0.5, slots=8)

    @agent.capability("sound")
    async def sound(n: int) -> int:
        return n

    @agent.capability("broken")
    async def broken(n: int) -> int:
        return n

    return agent


@asynccontextmanager
async def working(mesh: Mesh, agent: Agent) -> AsyncIterator[None]:
    serving = asyncio.create_task(agent.serve(mesh))
    await eventually(lambda: serving.done() or (agent.serving and agent.serving.tending.sweeps))
    try:
        yield
    finally:
        agent.stop()
        await serving


async def unusable(mesh: Mesh) -> list[str]:
    """The keys of which the audit tail says that they are no streams."""
    events = await mesh.store.command("XRANGE", mesh.keys.events(), "-", "+")
    told = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in events]
    return [one["stream"] for one in told if one["type"] == "stream.unusable"]


async def spoil(redis: Redis, key: str) -> None:
    await redis.delete(key)
    await redis.set(key, "not what you think")


async def test_enqueueing_into_a_wrong_stream_names_the_key(mesh: Mesh, redis: Redis) -> None:
    key = mesh.keys.tasks("broken")
    await spoil(redis, key)
    with pytest.raises(MeshError, match="WRONGTYPE") as caught:
        await mesh.enqueue("broken", n=1)
    assert key in str(caught.value)
    assert (await mesh.enqueue("sound", n=1)).created


async def test_a_record_of_another_type_spoils_only_its_own_task(mesh: Mesh, redis: Redis) -> None:
    await spoil(redis, mesh.keys.task("bad"))
    verdicts = await asyncio.gather(
        *(mesh.enqueue("sound", {"n": n}, id=id) for n, id in enumerate(("good-1", "bad", "good-2"))),
        return_exceptions=True,
    )
    assert [isinstance(one, MeshError) for one in verdicts] == [False, True, False]
    assert f"the key {mesh.keys.task('bad')} of the record" in str(verdicts[1])
    async with working(mesh, worker()):
        assert [await mesh.task(id).result(5) for id in ("good-1", "good-2")] == [0, 2]


async def test_an_entry_whose_record_is_of_another_type_becomes_a_dead_letter(mesh: Mesh, redis: Redis) -> None:
    await spoil(redis, mesh.keys.task("bad"))
    await redis.xadd(mesh.keys.tasks("sound"), {"payload": '{"n": 1}', "id": "bad"})
    async with working(mesh, worker()):
        assert await mesh.call("sound", {"n": 2}, timeout=5) == 2
        (letter,) = [one async for one in mesh.dead.letters()]
        assert (letter.id, letter.reason, letter.payload) == ("bad", "record_unusable", '{"n": 1}')


@pytest.mark.parametrize("when", ["before", "while"])
@pytest.mark.parametrize("lane", ["normal", "high"])
async def test_a_wrong_stream_does_not_stop_the_other_capabilities(mesh: Mesh, redis: Redis, when: str, lane: str) -> None:  # fmt: skip
    key = mesh.keys.tasks("broken", lane)
    if when == "before":
        await spoil(redis, key)
    async with working(mesh, worker()):
        await spoil(redis, key)
        delayed = await mesh.enqueue("sound", {"n": 9}, delay=0.1)
        urgent = await mesh.enqueue("sound", {"n": 8}, priority="high")
        for n in range(5):
            assert await mesh.call("sound", {"n": n}, timeout=3) == n
        assert (await delayed.result(3), await urgent.result(3)) == (9, 8)
    assert key in await unusable(mesh)


@pytest.mark.parametrize(
    "key", ["due", "sweep", "inboxes", "events", "members", "control", "broadcast", "caps", "dead"]
)
async def test_work_goes_on_beside_a_wrong_key(mesh: Mesh, redis: Redis, key: str) -> None:
    async with working(mesh, worker()):
        await spoil(redis, mesh.keys.prefix() + ("dead:sound" if key == "dead" else key))
        for n in range(5):
            assert await mesh.call("sound", {"n": n}, timeout=3) == n


async def test_dead_letters_that_cannot_be_kept_hold_up_nothing_else(mesh: Mesh, redis: Redis) -> None:
    """The record still tells, and so does the audit tail."""
    key = mesh.keys.dead("sound")
    async with working(mesh, worker()):
        await spoil(redis, key)
        bad = await mesh.enqueue("sound", {"m": 1})
        await redis.xadd(mesh.keys.tasks("sound"), {"payload": "no json"})
        for n in range(5):
            assert await mesh.call("sound", {"n": n}, timeout=3) == n
        with pytest.raises(TaskDead, match="misses n"):
            await bad.result(5)
    assert await unusable(mesh) == [key, key]


async def test_a_delayed_task_whose_record_was_spoilt_does_not_hold_up_the_others(mesh: Mesh, redis: Redis) -> None:
    await mesh.enqueue("sound", {"n": 1}, id="bad", delay=0.05)
    good = await mesh.enqueue("sound", {"n": 2}, delay=0.1)
    await spoil(redis, mesh.keys.task("bad"))
    async with working(mesh, worker()):
        assert await good.result(3) == 2


async def test_a_record_that_is_spoilt_while_its_task_runs_costs_only_that_task(mesh: Mesh, redis: Redis) -> None:
    agent, go_on = worker(), asyncio.Event()

    @agent.capability("wait")
    async def wait() -> None:
        await go_on.wait()

    async with working(mesh, agent):
        running = [await mesh.enqueue("wait", id=id) for id in ("bad", "good")]
        await eventually(lambda: agent.serving and agent.serving.claims.running == 2)
        await spoil(redis, mesh.keys.task("bad"))
        beats = agent.serving.tending.sweeps if agent.serving else 0
        await eventually(lambda: agent.serving and agent.serving.tending.sweeps > beats + 10)
        go_on.set()
        assert await running[1].result(5) is None
        assert await mesh.call("sound", {"n": 1}, timeout=3) == 1
        await eventually(lambda: agent.serving and not agent.serving.claims.held)
    with pytest.raises((TaskDead, MeshError)):
        await running[0].result(1)
