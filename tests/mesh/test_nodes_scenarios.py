"""Agents that are killed and frozen in the middle of their work, with real processes. Each scenario states its bound."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

import pytest

from streammesh import Mesh, Record, State, Task
from tests.eventually import eventually

LEASE = 1.0
Crowd = Callable[..., Awaitable[Process]]


@pytest.fixture
async def mesh(url: str, namespace: str) -> AsyncIterator[Mesh]:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        yield mesh


@pytest.fixture
async def crowd(mesh: Mesh) -> AsyncIterator[Crowd]:
    """``process = await crowd("name", count, slots)``: so many agents in a process of their own, all ready."""
    processes: list[Process] = []

    async def start(name: str, count: int, slots: int) -> Process:
        argv = [mesh.url, mesh.namespace, name, str(count), str(LEASE), str(slots)]
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.mesh.crowd", *argv, stdout=PIPE)
        processes.append(process)

        async def ready() -> bool:
            known = await mesh.peers(fresh=True)
            return sum(one.name == name and one.state == "ready" for one in known) == count

        await eventually(ready, timeout=30, what=f"{count} of {name} are ready")
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


async def records(mesh: Mesh, tasks: list[Task]) -> list[Record]:
    return await asyncio.gather(*(task.record() for task in tasks))


async def starts(mesh: Mesh) -> dict[str, int]:
    flat = await mesh.store.command("HGETALL", f"{mesh.namespace}-starts")
    return dict(zip(flat[::2], map(int, flat[1::2]), strict=True))


def ms(at: str) -> float:
    return datetime.fromisoformat(at).timestamp() * 1000


async def server_ms(mesh: Mesh) -> float:
    return float(await mesh.status.now_ms())


@pytest.mark.slow
async def test_what_killed_agents_ran_is_finished_by_others(mesh: Mesh, crowd: Crowd) -> None:
    """20 agents in 4 processes, 2,000 tasks, one process (5 agents of 4 slots) is killed: nothing is lost or done twice for good,
    at most as many tasks begin twice as the killed had slots, and 99 % of those begin again within 2.5 s."""
    rng = random.Random(7)
    processes = [await crowd(f"crowd-{n}", 5, 4) for n in range(4)]
    payloads = [{"ms": rng.randint(20, 200)} for _ in range(2000)]
    tasks = [task for task in await mesh.enqueue_many("work", payloads) if isinstance(task, Task)]

    async def begun() -> bool:
        return len(await starts(mesh)) > 500

    await eventually(begun, timeout=30)
    processes[1].kill()
    killed = await server_ms(mesh)
    results = await asyncio.wait_for(asyncio.gather(*(task.result() for task in tasks)), 60)
    assert len(results) == 2000
    seen = await records(mesh, tasks)
    assert {record.state for record in seen} == {State.SUCCEEDED}
    again = [record for record in seen if int(record.fields.get("deaths", 0))]
    assert again, "somebody was killed in the middle of something"
    extra = sum((await starts(mesh)).values()) - 2000
    assert 0 <= extra <= 20, f"{extra} duplicate starts"
    gaps = sorted((ms(record.fields["started_at"]) - killed) / 1000 for record in again)
    sys.stdout.write(
        f"taken over: {len(again)}, {extra} started twice, {gaps[0]:.2f} to {gaps[-1]:.2f} s after the kill\n"
    )
    assert gaps[int(0.99 * (len(gaps) - 1))] <= 2.5
    assert await mesh.store.command("XLEN", mesh.keys.tasks("work")) == 0
    died = [one async for one in _feed(mesh) if one[0] == "died"]
    assert len(died) == 5
    assert {reason for _, reason in died} == {"expired"}


async def _feed(mesh: Mesh) -> AsyncIterator[tuple[str, str]]:
    for _, flat in await mesh.store.command("XRANGE", mesh.keys.members, "-", "+"):
        event = dict(zip(flat[::2], flat[1::2], strict=True))
        yield event["type"], event.get("reason", "")


@pytest.mark.slow
async def test_a_frozen_agent_changes_nothing_when_it_wakes_up(mesh: Mesh, crowd: Crowd) -> None:
    """3 agents are frozen for 3 leases with 2 tasks each; a fourth finishes them. Awake again, they are back within 2 beats and a
    second, and not one record changes."""
    frozen = [await crowd(f"frozen-{n}", 1, 2) for n in range(3)]
    payloads = [{"ms": 1500}] * 6
    tasks = [task for task in await mesh.enqueue_many("work", payloads) if isinstance(task, Task)]

    async def all_begun() -> bool:
        return len(await starts(mesh)) == 6

    await eventually(all_begun)
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    await crowd("healthy", 1, 8)
    results = await asyncio.wait_for(asyncio.gather(*(task.result() for task in tasks)), 20)
    assert {result.partition(".")[0] for result in results} == {"healthy"}
    before = [record.fields for record in await records(mesh, tasks)]
    for process in frozen:
        process.send_signal(signal.SIGCONT)

    async def back() -> bool:
        names = {one.name for one in await mesh.peers(fresh=True)}
        return len(names & {"frozen-0", "frozen-1", "frozen-2"}) == 3

    await eventually(back, timeout=2 * LEASE / 4 + 1.0)
    # A task of each of them goes through: whatever they held on to is behind them by then.
    for n in range(3):
        assert str(await mesh.call("work", {"ms": 1}, to=f"frozen-{n}", timeout=10)).startswith(f"frozen-{n}.")
    assert [record.fields for record in await records(mesh, tasks)] == before
    assert {record["attempt"] for record in before} == {"2"}
    fences = [await mesh.request("stats", to=f"frozen-{n}") for n in range(3)]
    assert all(one["stale"] <= 2 for one in fences), "what was refused is at most what each of them held"
