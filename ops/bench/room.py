"""What is taken up: bytes in the server, MB of an agent, commands of an idle one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ops.bench import clients
from ops.bench.drain import stream_of, wait_until_drained
from ops.bench.figures import Figure
from ops.bench.process import Server, until
from ops.bench.size import Size

__all__ = ["flat", "idle", "memory"]

Say = Callable[[str], None]


def memory(size: Size, say: Say) -> list[Figure]:
    """Bytes of a task in the server while it waits, when it is finished, and after its retention."""
    say(f"memory: {size.stored:,} tasks, kept for {size.retention:g} s")
    with Server() as server:
        asyncio.run(clients.pause(server.url))
        agent = server.child("agent", slots=size.slots, retention=size.retention).ready()
        agent.say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == 1, 30.0, "the agent is ready", pause=0.1)
        keys, empty = server.client.dbsize(), server.memory
        asyncio.run(clients.fill(server.url, size.stored))
        queued = (server.memory - empty) / size.stored
        asyncio.run(clients.resume(server.url))
        wait_until_drained(server, stream_of("noop"), size.stored)
        finished = (server.memory - empty) / size.stored
        say("    waiting for the records to expire")
        # The stream itself has come into being meanwhile, and stays.
        until(lambda: server.client.dbsize() <= keys + 2, size.retention + 60.0, "every record has expired", pause=0.1)
        after = max(0.0, (server.memory - empty) / size.stored)
        left = sum(1 for _ in server.client.scan_iter("{mesh}:task:*", count=1000))
    return [
        Figure.at_most("a queued task, payload of 20 bytes", "bytes", [queued], 320),
        Figure.at_most("a finished task, until its retention ends", "bytes", [finished], 450),
        Figure.at_most("records after the retention", "keys", [left], 0),
        Figure.shown("memory after the retention", "bytes/task", [after]),
    ]


def idle(size: Size, say: Say) -> list[Figure]:
    """What an agent with nothing to do sends, and weighs."""
    commands, resident = [], []
    for turn in range(min(size.rounds, 3)):
        say(f"idle, round {turn + 1}: an agent does nothing for {size.idle:g} s")
        with Server() as server:
            agent = server.child("agent", slots=32).ready()
            agent.say("go")
            until(lambda: asyncio.run(clients.ready(server.url)) == 1, 30.0, "the agent is ready", pause=0.1)
            resident.append(agent.resident)
            commands.append(len(server.overheard(size.idle)) / size.idle)
    return [
        Figure.at_most("commands of an idle agent", "/s", commands, 5),
        Figure.at_most("an agent at its start", "MB", resident, 45),
    ]


def flat(size: Size, say: Say) -> list[Figure]:
    """Whether an agent's memory stays what it is over a million tasks."""
    with Server() as server:
        agent = server.child("agent", slots=size.slots, retention=1.0).ready()
        agent.say("go")
        # The first of twenty portions fills pools and caches that are kept.
        portion, sizes = size.million // 20, []
        for turn in range(20):
            asyncio.run(clients.fill(server.url, portion))
            wait_until_drained(server, stream_of("noop"), portion)
            sizes.append(agent.resident)
            say(f"flat: {(turn + 1) * portion:,} tasks, {sizes[-1]:.1f} MB")
    return [
        Figure.shown(f"an agent after {portion:,} tasks", "MB", [sizes[0]]),
        Figure.against(f"an agent after {size.million:,} tasks", "MB", [sizes[-1]], "the start", [sizes[0]], most=1.1),
    ]
