"""Ten thousand tasks, each enqueued one to three times, in disorder, by several clients, while agents are killed. It states its bound."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter

import pytest

from streammesh import Mesh, Task
from tests.eventually import eventually
from tests.mesh.test_nodes_scenarios import Crowd, crowd, mesh, starts

__all__ = ["crowd", "mesh"]

TASKS, CLIENTS, SLOTS, SEED = 10_000, 3, 4, 12


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_thousand_in_disorder_are_each_done_once(mesh: Mesh, crowd: Crowd) -> None:
    """Every id ends once, succeeded; no more begin twice than the killed agent (one of twenty) had slots; and what is enqueued
    once more afterwards is known."""
    victim = await crowd("victim", 1, SLOTS)
    for n, count in enumerate((10, 9)):
        await crowd(f"crowd-{n}", count, SLOTS)
    chance = random.Random(SEED)
    sent = [n for n in range(TASKS) for _ in range(chance.randint(1, 3))]
    chance.shuffle(sent)
    made: Counter[int] = Counter()

    async def enqueue(part: list[int]) -> None:
        async with Mesh.connect(mesh.url, namespace=mesh.namespace) as own:
            for start in range(0, len(part), 250):
                some = part[start : start + 250]
                verdicts = await own.enqueue_many(
                    "work", [{"ms": n % 5} for n in some], ids=[f"once-{n}" for n in some]
                )
                made.update(n for n, one in zip(some, verdicts, strict=True) if isinstance(one, Task) and one.created)

    async def kill() -> None:
        async def begun() -> bool:
            return len(await starts(mesh)) > TASKS // 5

        await eventually(begun, timeout=60)
        victim.kill()

    await asyncio.gather(kill(), *(enqueue(sent[n::CLIENTS]) for n in range(CLIENTS)))
    assert made == Counter(range(TASKS)), "each was made once, by whoever came first"

    async def ended() -> bool:
        replies = await mesh.store.commands([("HGET", mesh.keys.task(f"once-{n}"), "state") for n in range(TASKS)])
        return Counter(replies) == {"succeeded": TASKS}

    async def empty() -> bool:
        return int(await mesh.store.command("XLEN", mesh.keys.tasks("work"))) == 0

    await eventually(empty, timeout=90)
    assert await ended()
    begun = await starts(mesh)
    assert len(begun) == TASKS
    extra = sum(begun.values()) - TASKS
    assert max(begun.values()) <= 2
    sys.stdout.write(f"seed {SEED}: {len(sent)} enqueued, {TASKS} done, {extra} begun twice\n")
    assert 0 <= extra <= SLOTS
    again = await mesh.enqueue_many("work", [{"ms": n % 5} for n in range(100)], ids=[f"once-{n}" for n in range(100)])
    assert not any(isinstance(one, Task) and one.created for one in again)
