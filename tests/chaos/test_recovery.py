"""How long the work of a killed agent stands still: until its lease has ended, and about a second more."""

from __future__ import annotations

import time

import pytest

from tests.chaos.stage import Seat, Stage
from tests.eventually import eventually

pytestmark = pytest.mark.chaos
TASKS = 100


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("lease", "limit"), [(2.0, 3.0), pytest.param(10.0, 11.0, marks=pytest.mark.slow)])
async def test_a_hundred_running_tasks_of_a_killed_agent_run_again_within_a_lease_and_a_second(tmp_path, lease, limit):
    async with Stage(tmp_path, seats=1, slots=TASKS, lease=lease) as stage:
        mesh = stage.inspector
        ids = [f"t{n}" for n in range(TASKS)]
        await mesh.enqueue_many("slow", ({"n": n, "ms": 60_000} for n in range(TASKS)), ids=ids)

        async def owners() -> list[tuple[str, str]]:
            replies = await mesh.store.commands([("HMGET", mesh.keys.task(id), "agent", "attempt") for id in ids])
            return [(agent or "", attempt or "") for agent, attempt in replies]

        async def all_with(seat: Seat, attempt: str) -> bool:
            seat.check()
            return all(agent.startswith(f"a{seat.number}.") and n == attempt for agent, n in await owners())

        first = stage.seats[0]
        await eventually(lambda: all_with(first, "1"), timeout=20, what="the first agent runs them all")
        second = await stage.add()

        async def both_here() -> bool:
            return len(await mesh.agents()) == 2

        await eventually(both_here, timeout=20)
        killed = time.monotonic()
        first.kill()
        await eventually(lambda: all_with(second, "2"), timeout=limit + 10, what="the second agent runs them all")
        took = time.monotonic() - killed
        print(f"lease {lease:g} s: {TASKS} tasks run again {took:.2f} s after the SIGKILL")  # noqa: T201
        assert took <= limit
