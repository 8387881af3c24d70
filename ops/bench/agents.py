"""The agent of the cases: no-op handlers on the public interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from streammesh import Agent, Mesh, TaskContext

__all__ = ["NAME", "ROLES"]

#: How its connections are named.
NAME = "bench-agent"

#: The work of a ``toil``: ns of CPU.
TOIL = 200_000


async def serve(
    url: str,
    say: Callable[[Any], None],
    heard: Callable[[], Awaitable[str]],
    *,
    slots: int,
    lease: float = 10.0,
    retention: float | None = None,
) -> None:
    """Serve ``noop`` (answers with its text), ``toil`` (as that, after some work), ``clock`` (with the moment it ran) and
    ``hold`` (ends at the word ``release``)."""
    agent = Agent("bench", slots=slots, lease=lease)
    released = asyncio.Event()

    @agent.capability("noop", retention=retention)
    async def noop(n: str) -> str:
        return n

    @agent.capability("toil", retention=retention)
    async def toil(n: str) -> str:
        end = time.thread_time_ns() + TOIL
        while time.thread_time_ns() < end:
            pass
        return n

    @agent.capability("clock")
    async def clock() -> int:
        return time.monotonic_ns()

    @agent.capability("hold")
    async def hold(ctx: TaskContext) -> list[Any]:
        say(["began", ctx.id, ctx.attempt])
        await released.wait()
        say(["ended", ctx.id, ctx.attempt])
        return [ctx.attempt]

    async with Mesh.connect(url, patience=None, name=NAME) as mesh:
        say("ready")
        if await heard() != "go":
            return
        serving = asyncio.create_task(agent.serve(mesh))
        while word := await heard():
            if word == "release":
                released.set()
        # Standard input is closed: whoever started us is gone or done.
        agent.stop()
        await serving


ROLES: dict[str, Callable[..., Awaitable[None]]] = {"agent": serve}
