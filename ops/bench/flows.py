"""The agents and clients of the cases about runs: workflows of a few steps, on the public interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from streammesh import Agent, Mesh, Run

__all__ = ["ROLES", "finish", "start"]

Say = Callable[[Any], None]
Heard = Callable[[], Awaitable[str]]


def make_agent(lease: float, ledger: str = "") -> Agent:
    """Workflows over the capability ``noop`` and the local step ``nothing``."""
    agent = Agent("flows", slots=256, lease=lease)

    @agent.capability("noop", retention=60)
    async def noop(n: int) -> int:
        return n

    async def nothing(n: int) -> int:
        return n

    def noted(name: str) -> int:
        with Path(ledger).open("a", encoding="utf-8") as file:
            file.write(f"{name} {time.monotonic()}\n")
        return 0

    @agent.workflow("chain")
    async def chain(run: Run, steps: int) -> int:
        for n in range(steps):
            await run.call("noop", n=n)
        return steps

    @agent.workflow("local")
    async def local(run: Run, steps: int) -> int:
        for n in range(steps):
            await run.step(nothing, n)
        return steps

    @agent.workflow("spread")
    async def spread(run: Run, steps: int) -> int:
        return len(await asyncio.gather(*(run.call("noop", n=n) for n in range(steps))))

    @agent.workflow("mapped")
    async def mapped(run: Run, steps: int) -> int:
        return len(await run.map("noop", [{"n": n} for n in range(steps)]))

    @agent.workflow("parked")
    async def parked(run: Run) -> Any:
        await run.call("noop", n=1)
        return await run.signal("go", timeout=86_400)

    @agent.workflow("awaiting")
    async def awaiting(run: Run) -> Any:
        return await run.signal("go")

    @agent.workflow("timed")
    async def timed(run: Run, until: float) -> float:
        await asyncio.sleep(until - run.now().timestamp())
        return 0.0

    @agent.workflow("noted")
    async def noting(run: Run, steps: int) -> int:
        for n in range(steps):
            await run.step(noted, f"{run.id}.{n}")
            await asyncio.sleep(0.05)
        return steps

    return agent


async def serve(url: str, say: Say, heard: Heard, *, lease: float = 10.0, ledger: str = "") -> None:
    """Serve until standard input is closed."""
    agent = make_agent(lease, ledger)
    async with Mesh.connect(url, patience=None, name="bench-flows") as mesh:
        say("ready")
        if await heard() != "go":
            return
        serving = asyncio.create_task(agent.serve(mesh))
        while await heard():
            continue
        agent.stop()
        await serving


async def flows(url: str, say: Say, heard: Heard, *, workflow: str, steps: int, count: int, at_once: int) -> None:
    """Start ``count`` runs, ``at_once`` of them at a time, and wait for each: ms of each, and seconds in all."""
    async with Mesh.connect(url) as mesh:
        say("ready")
        await heard()
        took: list[float] = []
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                began = time.perf_counter()
                await (await mesh.start(workflow, steps=steps)).result(timeout=60)
                took.append((time.perf_counter() - began) * 1000)

        # What comes first pays for connections and scripts.
        await asyncio.gather(*(one() for _ in range(min(at_once, 20, count))))
        took.clear()
        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        say({"took": took, "seconds": time.perf_counter() - began})


async def start(url: str, workflow: str, ids: list[str], input: dict[str, Any]) -> None:
    """Start runs under these ids."""
    async with Mesh.connect(url, name="bench-start") as mesh:
        await asyncio.gather(*(mesh.start(workflow, input, id=id) for id in ids))


async def finish(url: str, ids: list[str], signal: str = "") -> list[Any]:
    """The results of these runs, each signalled before if a signal is named."""
    async with Mesh.connect(url, name="bench-wait") as mesh:
        results: list[Any] = []
        for at in range(0, len(ids), 500):
            some = ids[at : at + 500]
            if signal:
                await asyncio.gather(*(mesh.run(id).signal(signal, 1) for id in some))
            results += await asyncio.gather(*(mesh.run(id).result(timeout=120) for id in some))
        return results


ROLES: dict[str, Callable[..., Awaitable[None]]] = {"flows-agent": serve, "flows": flows}
