"""Votes: how long nine agents in nine processes take to decide, all present, from the question to the decision."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median, quantiles
from typing import Any

from ops.bench import clients
from ops.bench.figures import Figure
from ops.bench.process import Server, until
from ops.bench.size import Size
from streammesh import Agent, Ballot, Mesh

__all__ = ["ROLES", "measure"]

Say = Callable[[Any], None]
Heard = Callable[[], Awaitable[str]]
VOTERS = 9


async def voter(url: str, say: Say, heard: Heard) -> None:
    """Vote for the first option until standard input is closed."""
    agent = Agent("voter")

    @agent.votes()
    async def vote(ballot: Ballot) -> str:
        return ballot.options[0]

    async with Mesh.connect(url, patience=None, name="bench-voter") as mesh:
        say("ready")
        await heard()
        serving = asyncio.create_task(agent.serve(mesh))
        while await heard():
            continue
        agent.stop()
        await serving


async def ask(url: str, say: Say, heard: Heard, *, method: str, count: int) -> None:
    """Put ``count`` questions to the vote, one after the other: ms of each, and how many ballots each decision had."""
    async with Mesh.connect(url) as mesh:
        say("ready")
        await heard()
        took: list[float] = []
        ballots: list[int] = []
        # What comes first pays for connections and scripts.
        for turn in range(-5, count):
            began = time.perf_counter()
            decision = await mesh.vote("?", ["yes", "no"], method=method)
            if turn >= 0:
                took.append((time.perf_counter() - began) * 1000)
                ballots.append(decision.ballots)
        say({"took": took, "ballots": ballots})


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """Unanimity waits for the last ballot, a majority for the fifth."""
    found: dict[str, list[float]] = {"all": [], "tail": [], "majority": []}
    for turn in range(size.rounds):
        say(f"votes, round {turn + 1} of {size.rounds}")
        with Server() as server:
            for child in [server.child("voter") for _ in range(VOTERS)]:
                child.ready().say("go")
            until(lambda: asyncio.run(clients.ready(server.url)) == VOTERS, 60.0, "the voters are ready", pause=0.1)
            for method in ("unanimity", "majority"):
                client = server.child("ask", method=method, count=size.votes).ready()
                client.say("go")
                said = client.hear(120.0)
                if method == "majority":
                    found["majority"].append(median(said["took"]))
                    continue
                assert set(said["ballots"]) == {VOTERS}, "unanimity has every ballot"
                found["all"].append(median(said["took"]))
                found["tail"].append(quantiles(said["took"], n=100)[98])
    return [
        Figure.at_most(f"a vote of {VOTERS} agents that all answer, p50", "ms", found["all"], 15),
        Figure.shown("the same, p99", "ms", found["tail"]),
        Figure.shown(f"a majority of {VOTERS} agents, p50", "ms", found["majority"]),
    ]


ROLES: dict[str, Callable[..., Awaitable[None]]] = {"voter": voter, "ask": ask}
