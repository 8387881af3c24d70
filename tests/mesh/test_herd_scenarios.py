"""Scenario 10, live: tasks that agents pull go to whoever is free, so none waits while another agent has nothing to do."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from streammesh import Agent, Mesh
from tests.eventually import eventually

WORKERS, SERVICE, LOAD, TASKS = 20, 0.05, 0.8, 3000


@pytest.mark.slow
async def test_twenty_workers_that_pull(url: str, namespace: str) -> None:
    """At a load of 0.8, with one slot each and service times as they come (exponential), a task is in the system for at most 1.3
    mean service times, its own among them; and the work is shared evenly (Jain's index at least 0.95)."""
    dice = random.Random(10)
    done: Counter[str] = Counter()
    times: list[float] = []
    finished: dict[int, float] = {}

    def worker(name: str) -> Agent:
        agent = Agent(name, slots=1)

        @agent.capability("serve")
        async def serve(n: int, seconds: float) -> None:
            await asyncio.sleep(seconds)  # the service itself
            done[name] += 1
            finished[n] = time.monotonic()

        return agent

    agents = [worker(f"w{n}") for n in range(WORKERS)]
    async with Mesh.connect(url, namespace=namespace) as mesh:

        async def at_work(agent: Agent) -> None:
            async with Mesh.connect(url, namespace=namespace, patience=None) as own:
                await agent.serve(own)

        serving = [asyncio.create_task(at_work(agent)) for agent in agents]

        async def all_ready() -> bool:
            return sum(one.state == "ready" for one in await mesh.agents()) == WORKERS

        await eventually(all_ready, timeout=30)
        services = [dice.expovariate(1 / SERVICE) for _ in range(TASKS)]
        came: dict[int, float] = {}
        due = time.monotonic()
        for n, seconds in enumerate(services):
            due += dice.expovariate(LOAD * WORKERS / SERVICE)
            await asyncio.sleep(max(0.0, due - time.monotonic()))  # Poisson arrivals
            came[n] = time.monotonic()
            await mesh.enqueue("serve", n=n, seconds=seconds)
        await eventually(lambda: len(finished) == TASKS, timeout=30)
        times = [finished[n] - came[n] for n in range(TASKS // 5, TASKS)]
        for agent in agents:
            agent.stop()
        await asyncio.gather(*serving)
    mean = sum(times) / len(times) / (sum(services[TASKS // 5 :]) / len(times))
    shares = [done[f"w{n}"] for n in range(WORKERS)]
    jain = sum(shares) ** 2 / (WORKERS * sum(share**2 for share in shares))
    assert mean <= 1.3, f"{mean:.3f} mean service times in the system"
    assert jain >= 0.95, f"the shares are {shares}"
