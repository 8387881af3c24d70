"""The same capability over many payloads, with a bound on what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from streammesh import Agent, Mesh, Reject
from streammesh.errors import TaskFailed
from tests.eventually import eventually
from tests.guide.conftest import Serve


def squarer(slots: int = 8) -> Agent:
    agent = Agent("squarer", slots=slots, lease=1.0)

    @agent.capability("square")
    async def square(n: int) -> int:
        if n < 0:
            raise Reject("only naturals")
        return n * n

    return agent


async def test_results_come_in_the_order_of_the_payloads(mesh: Mesh, serve: Serve) -> None:
    await serve(squarer())
    payloads = ({"n": n} for n in range(100))
    assert [result async for result in mesh.map("square", payloads)] == [n * n for n in range(100)]


async def test_or_as_they_complete(mesh: Mesh, serve: Serve) -> None:
    agent, first_may_go = Agent("uneven", slots=4, lease=1.0), asyncio.Event()

    @agent.capability("walk")
    async def walk(n: int) -> int:
        if n == 0:
            await first_may_go.wait()
        return n

    await serve(agent)
    seen = []
    async for n in mesh.map("walk", [{"n": n} for n in range(10)], ordered=False):
        seen.append(n)
        if len(seen) == 9:
            first_may_go.set()
    assert sorted(seen) == list(range(10))
    assert seen[-1] == 0


async def test_no_more_than_limit_are_under_way(mesh: Mesh, serve: Serve) -> None:
    """So the payloads may come from something endless."""
    drawn = []

    def naturals() -> Iterator[dict[str, int]]:
        n = 0
        while True:
            drawn.append(n)
            yield {"n": n}
            n += 1

    await serve(squarer())
    seen: list[int] = []
    async for result in mesh.map("square", naturals(), limit=5):
        seen.append(result)
        assert len(drawn) <= len(seen) + 10
        if len(seen) == 50:
            break
    assert seen == [n * n for n in range(50)]
    await _finished(mesh, "square")


async def test_a_failed_one_ends_the_map_or_is_yielded_as_its_error(mesh: Mesh, serve: Serve) -> None:
    await serve(squarer())
    payloads = [{"n": 2}, {"n": -1}, {"n": 3}]
    with pytest.raises(TaskFailed, match="only naturals"):
        [result async for result in mesh.map("square", payloads)]
    four, error, nine = [result async for result in mesh.map("square", payloads, raising=False)]
    assert (four, nine) == (4, 9)
    assert isinstance(error, TaskFailed)
    await _finished(mesh, "square")


async def test_nothing_in_nothing_out(mesh: Mesh) -> None:
    assert [result async for result in mesh.map("square", [])] == []


async def _finished(mesh: Mesh, capability: str) -> None:
    async def finished() -> bool:
        (one,) = await mesh.status.capabilities()
        return one.capability == capability and not one.waiting + one.running

    await eventually(finished)
