"""The clients of the cases, on the public interface: they enqueue, or call and wait, and say how long that took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ops.bench.load import one_at_a_time, payloads, steadily
from streammesh import Mesh

__all__ = ["ROLES"]

Say = Callable[[Any], None]
Heard = Callable[[], Awaitable[str]]


async def enqueue_many(url: str, say: Say, heard: Heard, *, count: int) -> None:
    """Tasks per second."""
    async with Mesh.connect(url) as mesh:
        await mesh.enqueue_many("warm-up", payloads(100))
        say("ready")
        await heard()
        began = time.perf_counter()
        await mesh.enqueue_many("noop", payloads(count))
        say(count / (time.perf_counter() - began))


async def enqueue(url: str, say: Say, heard: Heard, *, count: int) -> None:
    """Tasks per second, each awaited before the next."""
    async with Mesh.connect(url) as mesh:
        await mesh.enqueue("warm-up", n="")
        say("ready")
        await heard()
        began = time.perf_counter()
        for payload in payloads(count):
            await mesh.enqueue("noop", payload)
        say(count / (time.perf_counter() - began))


async def call(url: str, say: Say, heard: Heard, *, count: int) -> None:
    """Milliseconds from call to result, one at a time."""
    async with Mesh.connect(url) as mesh:
        say("ready")
        await heard()

        async def once() -> None:
            await mesh.call("clock", {}, timeout=10)

        say(await one_at_a_time(once, count))


async def steady(url: str, say: Say, heard: Heard, *, count: int, rate: float) -> None:
    """Milliseconds from call to result, and from call to the beginning of the work, at a steady rate."""
    async with Mesh.connect(url) as mesh:
        say("ready")
        await heard()
        begun: list[float] = []

        async def once() -> None:
            sent = time.monotonic_ns()
            begun.append((await mesh.call("clock", {}, timeout=10) - sent) / 1e6)

        took = await steadily(once, count, rate)
        say({"result": took, "begun": begun[-count:]})


async def fill(url: str, count: int, capability: str = "noop") -> None:
    """Enqueue a backlog."""
    async with Mesh.connect(url, name="bench-fill") as mesh:
        await mesh.enqueue_many(capability, payloads(count))


async def hold(url: str, count: int) -> list[str]:
    """Enqueue tasks that hold their slot until released; returns their ids."""
    async with Mesh.connect(url, name="bench-fill") as mesh:
        tasks = [await mesh.enqueue("hold", id=f"hold-{n}") for n in range(count)]
        return [task.id for task in tasks]


async def records(url: str, ids: list[str]) -> list[Any]:
    """(state, attempt) of each."""
    async with Mesh.connect(url, name="bench-look") as mesh:
        found = await asyncio.gather(*(mesh.task(id).record() for id in ids))
        return [(str(record.state), record.attempt) for record in found]


async def pause(url: str, capability: str = "noop") -> None:
    """Let nobody begin on the backlog."""
    async with Mesh.connect(url, name="bench-fill") as mesh:
        await mesh.pause(capability)


async def resume(url: str, capability: str = "noop") -> None:
    """Let everybody begin."""
    async with Mesh.connect(url, name="bench-fill") as mesh:
        await mesh.resume(capability)


async def ready(url: str) -> int:
    """How many agents have said, in a beat, that they are ready."""
    async with Mesh.connect(url, name="bench-look") as mesh:
        return sum(agent.state == "ready" for agent in await mesh.agents())


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "enqueue-many": enqueue_many,
    "enqueue": enqueue,
    "call": call,
    "steady": steady,
}
