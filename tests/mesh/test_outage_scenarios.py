"""The server is killed, stands still, loses its registry, and its connections: agents outlive all of it. Each states its bound.

A private server that writes its append-only file before it answers; ten agents in two processes, a beat each 250 ms, and a
client that enqueues all the while. What it was told is enqueued is done in the end, whatever happened meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from streammesh import Mesh, Task
from streammesh.errors import MeshError, TaskNotFound
from tests.eventually import eventually
from tests.servers import Server

LEASE, AGENTS, PROCESSES = 1.0, 10, 2
BEAT = LEASE / 4
#: Seconds that an agent may take for its next connection, beyond two beats.
RECONNECT = 1.0
STALL = 5.0

pytestmark = pytest.mark.slow


@pytest.fixture(params=["always", "everysec"])
def fsync(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own(fsync: str, tmp_path: Path) -> Iterator[Server]:
    server = Server("valkey", tmp_path, {"appendfsync": fsync})
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def crowd(url: str, namespace: str) -> AsyncIterator[list[Process]]:
    """The agents, once each of them knows all of them."""
    argv = [url, namespace, "member", str(AGENTS // PROCESSES), str(LEASE), "4", str(AGENTS)]
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.mesh.crowd", *argv, stdout=PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert (await asyncio.wait_for(process.stdout.readline(), 60)).startswith(b"knows")
        yield processes
    finally:
        for process in processes:
            process.kill()
            await process.wait()


@asynccontextmanager
async def enqueuing(mesh: Mesh) -> AsyncIterator[list[str]]:
    """Tasks come without a pause; the list has those of which the server said that it has them."""
    known: list[str] = []

    async def go_on() -> None:
        for n in count():
            try:
                task = await mesh.enqueue("work", {"ms": 20}, id=f"task-{n}")
            except MeshError:
                continue
            known.append(task.id)
            await asyncio.sleep(0.02)

    going = asyncio.create_task(go_on())
    try:
        yield known
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


async def registered(mesh: Mesh, since: int) -> bool:
    """Whether all are ready and have beaten after ``since``, in the server's ms."""
    flat = await mesh.store.command("ZRANGE", mesh.keys.agents, 0, -1, "WITHSCORES")
    beats = [float(beat) for beat in flat[1::2]]
    states = [one.state for one in await mesh.agents()]
    return len(beats) == AGENTS and min(beats) > since and states == ["ready"] * AGENTS


async def since(mesh: Mesh, cursor: str) -> list[tuple[str, str]]:
    """(type, agent) of what the members feed says after that place."""
    entries = await mesh.store.command("XRANGE", mesh.keys.members, f"({cursor}", "+")
    fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]
    return [(one["type"], one["agent"]) for one in fields]


async def newest(mesh: Mesh) -> str:
    entries = await mesh.store.command("XREVRANGE", mesh.keys.members, "+", "-", "COUNT", 1)
    return str(entries[0][0])


# -- the troubles: each returns when the server answers again


async def killed(own: Server, _mesh: Mesh) -> None:
    await asyncio.to_thread(own.kill)
    await asyncio.to_thread(own.start)


async def stalled(own: Server, _mesh: Mesh) -> None:
    began = time.monotonic()
    os.kill(own.pid, signal.SIGSTOP)
    try:
        await eventually(lambda: time.monotonic() - began >= STALL, timeout=2 * STALL, what="the stall itself")
    finally:
        os.kill(own.pid, signal.SIGCONT)


async def forgotten(own: Server, mesh: Mesh) -> None:
    prefix = mesh.keys.prefix()
    async with Redis.from_url(own.url, decode_responses=True) as redis:
        cards = [key async for key in redis.scan_iter(f"{prefix}agent:*")]
        offers = [key async for key in redis.scan_iter(f"{prefix}cap:*:agents")]
        assert await redis.delete(f"{prefix}agents", *cards, *offers) == 1 + AGENTS + 1


async def cut(own: Server, _mesh: Mesh) -> None:
    async with Redis.from_url(own.url) as redis:
        for _ in range(20):
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)  # the storm's own rhythm; nothing is waited for


TROUBLES: dict[str, Callable[[Server, Mesh], Awaitable[None]]] = {
    "killed and started again": killed, "standing still for 5 s": stalled, "registry keys deleted": forgotten, "connections killed": cut,
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_agents_outlive_it(
    own: Server, namespace: str, trouble: str, fsync: str, record_property: Callable[[str, object], None]
) -> None:
    """No process dies; all ten are registered again within 2 beats and a second; each leaves and joins once at most; no task
    is lost that the server had acknowledged; how many are with everysec is recorded."""
    async with Mesh.connect(own.url, namespace=namespace, patience=30) as mesh, crowd(own.url, namespace) as processes:
        async with enqueuing(mesh) as known:
            await eventually(lambda: len(known) >= 20)
            before, ids = await newest(mesh), sorted(one.id for one in await mesh.agents())
            await TROUBLES[trouble](own, mesh)
            over, so_far, now = time.monotonic(), len(known), await mesh.status.now_ms()
            await eventually(partial(registered, mesh, now), timeout=10)
            back = time.monotonic() - over
            await eventually(lambda: len(known) >= so_far + 20)
        ends = Counter(await asyncio.gather(*(_end(mesh.task(id)) for id in known)))
        assert all(process.returncode is None for process in processes)
        assert sorted(one.id for one in await mesh.agents()) == ids, "the same agents, by the same ids"
        said = await since(mesh, before)
    joins = Counter(agent for kind, agent in said if kind == "joined")
    leaves = Counter(agent for kind, agent in said if kind in ("left", "died"))
    figures = f"back after {back:.2f} s, {joins.total()} joins and {leaves.total()} leaves, {ends['lost']} of {ends.total()} lost"
    record_property(trouble, figures)
    sys.stdout.write(f"{trouble}: {figures}\n")
    assert back <= 2 * BEAT + RECONNECT
    assert max(joins.values(), default=0) <= 1, joins
    assert max(leaves.values(), default=0) <= 1, leaves
    assert set(ends) <= ({"done"} if fsync == "always" else {"done", "lost"}), ends


async def _end(task: Task) -> str:
    try:
        await task.result(timeout=30)
    except MeshError as error:
        return "lost" if isinstance(error, TaskNotFound) else repr(error)
    return "done"
