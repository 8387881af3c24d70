"""Draining a backlog: tasks a second with one, two and many agents, and what a task costs agent, server and disk.

The backlog is there, and everybody is connected, before the clock starts; it runs from the first entry taken to the last one settled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ops.bench import clients, floors
from ops.bench.agents import TOIL
from ops.bench.figures import Figure
from ops.bench.process import Child, Server, quiet, until
from ops.bench.size import Size

__all__ = ["Drain", "measure", "of_agents", "stream_of", "wait_until_drained"]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drain:
    """What one backlog took. CPU in seconds for 10,000, the rest for each task."""

    rate: float
    agent_cpu: float
    server_cpu: float
    appended: float = 0.0
    trips: float = 0.0


def measure(size: Size, say: Say) -> list[Figure]:
    """Throughput and cost of a task."""
    slots = size.slots
    cases: dict[str, Callable[[], Drain]] = {
        "bare": lambda: _of_floor("bare", size.drain),
        "bare-task": lambda: _of_floor("bare-task", size.drain // 2),
        "one": lambda: of_agents(1, size.drain, slots),
        "two": lambda: of_agents(2, size.drain, slots),
        "one, toiling": lambda: of_agents(1, size.toil, slots, "toil"),
        "two, toiling": lambda: of_agents(2, size.toil, slots, "toil"),
        "crowd": lambda: of_agents(size.crowd, size.crowd_drain, slots),
    }
    drains: dict[str, list[Drain]] = {name: [] for name in cases}
    for turn in range(size.rounds):
        for name, case in cases.items():
            # So many processes take long to start; their share of the time is kept small.
            if name == "crowd" and turn >= 2:
                continue
            say(f"throughput, round {turn + 1} of {size.rounds}: {name}")
            quiet(size.patience)
            drains[name].append(drain := case())
            say(f"    {drain.rate:,.0f}/s, agents {drain.agent_cpu:.3f} and server {drain.server_cpu:.3f} s for 10,000")
    rates = {name: [drain.rate for drain in found] for name, found in drains.items()}
    bare, one = drains["bare"], drains["one"]
    return [
        Figure.shown("bare, one process", "/s", rates["bare"]),
        Figure.shown("bare-task, one process", "/s", rates["bare-task"]),
        Figure.against("one agent", "tasks/s", rates["one"], "bare", rates["bare"], least=0.40),
        Figure.against("one agent", "tasks/s", rates["one"], "bare-task", rates["bare-task"], least=1.2),
        Figure.against("two agents", "tasks/s", rates["two"], "one agent", rates["one"], least=1.6),
        Figure.shown("one server's limit (1 / its CPU for a task)", "tasks/s", [1e4 / drain.server_cpu for drain in one]),
        Figure.against(
            f"two agents, {TOIL / 1e6:g} ms of work in a task", "tasks/s", rates["two, toiling"],
            "one such", rates["one, toiling"], least=1.6,
        ),
        Figure.against(f"{size.crowd} agents", "tasks/s", rates["crowd"], "one agent", rates["one"], least=0.7),
        Figure.shown("agent CPU, bare", "s/10,000", [drain.agent_cpu for drain in bare]),
        Figure.at_most("agent CPU", "s/10,000", [drain.agent_cpu for drain in one], 0.9),
        Figure.shown("server CPU, bare", "s/10,000", [drain.server_cpu for drain in bare]),
        Figure.at_most("server CPU of the work", "s/10,000", [drain.server_cpu for drain in one], 0.45),
        Figure.at_most("append-only file", "bytes/task", [drain.appended for drain in one], 1200),
        Figure.at_most("round trips under load", "/task", [drain.trips for drain in one], 0.05),
    ]  # fmt: skip


def of_agents(agents: int, count: int, slots: int, capability: str = "noop") -> Drain:
    """A backlog of ``count`` drained by so many agent processes."""
    with Server() as server:
        asyncio.run(clients.pause(server.url, capability))
        children = [server.child("agent", slots=slots) for _ in range(agents)]
        for child in children:
            child.ready().say("go")
        until(lambda: asyncio.run(clients.ready(server.url)) == agents, 60.0, "all agents are ready", pause=0.1)
        appended = server.appended
        asyncio.run(clients.fill(server.url, count, capability))
        scripts = server.scripts
        drain = _drained(
            server, stream_of(capability), children, count, lambda: asyncio.run(clients.resume(server.url, capability))
        )
        return replace(
            drain, appended=(server.appended - appended) / count, trips=(server.scripts - scripts) / count
        )  # fmt: skip


def stream_of(capability: str) -> str:
    return f"{{mesh}}:tasks:{capability}"


def _of_floor(role: str, count: int) -> Drain:
    with Server() as server:
        asyncio.run(floors.open_queue(server.url))
        worker = server.child(role, me="one").ready()
        asyncio.run(floors.fill(server.url, count))
        return _drained(server, floors.QUEUE, [worker], count, lambda: worker.say("go"))


def _drained(server: Server, stream: str, agents: list[Child], count: int, begin: Callable[[], None]) -> Drain:
    server_cpu, agent_cpu = server.cpu, sum(agent.cpu for agent in agents)
    begin()
    rate = wait_until_drained(server, stream, count)
    return Drain(
        rate,
        (sum(agent.cpu for agent in agents) - agent_cpu) / count * 10_000,
        (server.cpu - server_cpu) / count * 10_000,
    )


def wait_until_drained(server: Server, stream: str, count: int, timeout: float = 300.0) -> float:
    """Wait until the stream is empty; returns entries per second, from the first one taken to the last one settled."""
    group = server.client.xinfo_groups(stream)[0]["name"]

    def begun() -> bool:
        return bool(server.client.xpending(stream, group)["pending"] or server.client.xlen(stream) < count)

    until(begun, timeout, "the first entry is taken", pause=0.001)
    first = time.perf_counter()
    until(lambda: server.client.xlen(stream) == 0, timeout, f"{count} entries are settled", pause=0.005)
    return count / (time.perf_counter() - first)
