"""Five hundred requests a second, whether or not the ones before are answered: how long each takes. It states its bound."""

from __future__ import annotations

import asyncio
import sys

import pytest

from streammesh import Mesh
from tests.mesh.test_nodes_scenarios import Crowd, crowd, mesh

__all__ = ["crowd", "mesh"]

RATE, SECONDS = 500, 5


@pytest.mark.slow
async def test_five_hundred_requests_a_second(mesh: Mesh, crowd: Crowd) -> None:
    """Four agents answer; 99 of 100 requests take at most 25 ms from when they were due, and none fails."""
    await crowd("answers", 4, 4)
    await asyncio.gather(*(mesh.request("ping", to="answers", timeout=5) for _ in range(50)))
    took: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1

    async def ask(due: float) -> None:
        await mesh.request("ping", timeout=10)
        took.append(loop.time() - due)

    asked = []
    for n in range(RATE * SECONDS):
        due = began + n / RATE
        if due > loop.time():
            await asyncio.sleep(due - loop.time())  # the rate itself; nothing is waited for
        asked.append(loop.create_task(ask(due)))
    await asyncio.gather(*asked)
    took.sort()
    p50, p99 = (took[int(share * (len(took) - 1))] * 1000 for share in (0.5, 0.99))
    sys.stdout.write(
        f"{len(took)} requests at {RATE}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {took[-1] * 1000:.1f} ms\n"
    )
    assert p99 <= 25
