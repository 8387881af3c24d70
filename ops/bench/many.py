"""Many parked runs: that they weigh nothing in an agent, what they weigh in the server, and that all of them end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from ops.bench import clients, flows
from ops.bench.figures import Figure
from ops.bench.process import Child, Server, until
from ops.bench.size import Size
from streammesh import Mesh

__all__ = ["measure"]

Say = Callable[[str], None]

#: Runs that are started or signalled at a time; seconds that each thousand of them may take, at most, and some for all.
PORTION, PATIENCE, LEAST = 1000, 6.0, 60.0


def measure(size: Size, say: Say) -> list[Figure]:
    """Runs that wait for a signal: an agent's memory while they become more, the server's for each, and the end of all."""
    marks = [size.many * quarter // 4 for quarter in (1, 2, 4)]
    patience = LEAST + size.many / 1000 * PATIENCE
    with Server() as server:
        agent = server.child("flows-agent").ready()
        agent.say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == 1, 30.0, "the agent is ready", pause=0.1)
        asyncio.run(flows.start(server.url, "awaiting", ["warm-up"], {}))
        _wait(server, ["warm-up"], "parked", 30.0)
        empty, resident = server.memory, [_told(say, 0, agent)]
        began, at = time.monotonic(), 0
        for mark in marks:
            asyncio.run(_start(server.url, _ids(at, mark)))
            _wait(server, _ids(at, mark), "parked", patience)
            at = mark
            resident.append(_told(say, mark, agent))
        parked = time.monotonic() - began
        weight = max(0.0, (server.memory - empty) / size.many)
        say(f"many: all are parked after {parked:.1f} s, {weight:,.0f} bytes of the server's memory for each")
        began = time.monotonic()
        asyncio.run(_signal(server.url, _ids(0, at)))
        _wait(server, _ids(0, at), "succeeded", patience)
        ended = time.monotonic() - began
        resident.append(agent.resident)
        say(f"many: all have ended {ended:.1f} s after the first signal, agent {resident[-1]:.1f} MB")
        left = server.client.xlen("{mesh}:runs:awaiting")
    count = f"{size.many:,}"
    return [
        Figure.shown("an agent with no parked run", "MB", [resident[0]]),
        Figure.shown(f"the same with {marks[0]:,} parked runs", "MB", [resident[1]]),
        Figure.shown(f"the same with {marks[1]:,}", "MB", [resident[2]]),
        Figure.against(f"the same with {count}", "MB", [resident[3]], "the first quarter", [resident[1]], most=1.1),
        Figure.shown(f"the same when all {count} have ended", "MB", [resident[4]]),
        Figure.shown(f"each of {count} parked runs, in the server", "bytes", [weight]),
        Figure.shown(f"runs that start and park, of {count}", "/s", [size.many / parked]),
        Figure.shown(f"runs that are signalled and end, of {count}", "/s", [size.many / ended]),
        Figure.at_most("wake-ups that are left", "", [float(str(left))], 0),
    ]


def _told(say: Say, count: int, agent: Child) -> float:
    resident = agent.resident
    say(f"many: {count:,} runs parked, agent {resident:.1f} MB")
    return resident


def _ids(first: int, end: int) -> list[str]:
    return [f"m{n}" for n in range(first, end)]


async def _start(url: str, ids: Sequence[str]) -> None:
    async with Mesh.connect(url, name="bench-start") as mesh:
        for at in range(0, len(ids), PORTION):
            await asyncio.gather(*(mesh.start("awaiting", {}, id=id) for id in ids[at : at + PORTION]))


async def _signal(url: str, ids: Sequence[str]) -> None:
    async with Mesh.connect(url, name="bench-signal") as mesh:
        for at in range(0, len(ids), PORTION):
            await asyncio.gather(*(mesh.run(id).signal("go", 1) for id in ids[at : at + PORTION]))


def _wait(server: Server, ids: Sequence[str], state: str, patience: float) -> None:
    """Until each of these runs is in that state; only those that were not are asked for again."""
    missing = list(ids)

    def done() -> bool:
        nonlocal missing
        later = []
        for at in range(0, len(missing), 5000):
            some = missing[at : at + 5000]
            with server.client.pipeline(transaction=False) as pipe:
                for id in some:
                    pipe.hget(f"{{mesh}}:run:{id}", "state")
                said: list[Any] = pipe.execute()
            later += [id for id, word in zip(some, said, strict=True) if word != state]
            if len(later) > 5000:
                # Many are on their way: the rest need not be asked for now.
                later += missing[at + 5000 :]
                break
        missing = later
        return not missing

    until(done, patience, f"{len(ids):,} runs are {state}", pause=0.2)
