"""What the guide's tests share: `mesh` (an open client), `serve` (an agent at work while the test goes on), `redis` (a stranger)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh
from streammesh.testing import leaked_keys
from tests.eventually import eventually

Serve = Callable[[Agent], Awaitable[str]]


@pytest.fixture(params=[1, 3], ids=["one-shard", "three-shards"])
async def mesh(request: pytest.FixtureRequest, url: str, namespace: str) -> AsyncIterator[Mesh]:
    """An open client of a new mesh; the test must leave nothing there that would stay for ever."""
    async with Mesh.connect(url, namespace=namespace, shards=request.param) as mesh:
        yield mesh
        if not request.node.get_closest_marker("leaves_work"):
            assert await leaked_keys(mesh) == []


@pytest.fixture
async def serve(mesh: Mesh) -> AsyncIterator[Serve]:
    """``id = await serve(agent)``: the agent is at work, on a connection of its own, until the test is over."""
    at_work: list[tuple[Agent, asyncio.Task[None]]] = []

    async def work(agent: Agent) -> None:
        async with Mesh.connect(mesh.url, namespace=mesh.namespace, patience=None) as own:
            await agent.serve(own)

    async def start(agent: Agent) -> str:
        known = {one.id for one in await mesh.agents()}
        at_work.append((agent, asyncio.create_task(work(agent))))

        async def ready() -> str:
            return next((one.id for one in await mesh.agents() if one.id not in known and one.state == "ready"), "")

        return await eventually(ready, what=f"{agent.name} is ready")

    yield start
    for agent, _ in at_work:
        agent.stop()
    await asyncio.gather(*(working for _, working in at_work))


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    """A client that knows nothing of streammesh, as redis-cli does not."""
    async with Redis.from_url(url, decode_responses=True) as redis:
        yield redis
