"""Failure detection under the troubles that make observers see ghosts: delayed beats, frozen observers, frozen agents.

In virtual time where chance matters, with real processes and signals where the operating system does. The profile: a beat
every quarter of a lease of one second.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from statistics import quantiles

import pytest

from streammesh import Agent, Mesh
from streammesh.suspicion import Suspicion
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

BEAT, LEASE, SWEEP = 0.2, 1.0, 0.25

APP = """
import sys
from streammesh import Agent
agent = Agent("worker", lease=1.0, grace=1.0)
@agent.capability("echo")
async def echo(n: int) -> int:
    return n
agent.run(sys.argv[1], namespace=sys.argv[2])
"""


# -- virtual time


def beats(agent: int, until: float, rng: random.Random) -> Iterator[float]:
    """When an agent beats; three of ten do so up to two and a half beats late."""
    at = rng.random() * BEAT
    while at < until:
        yield at
        at += BEAT * rng.uniform(0.9, 1.1) + (rng.random() * 2.5 * BEAT if agent % 10 < 3 else 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_starved_agents_are_not_taken_for_dead_and_seldom_for_suspects(seed: int) -> None:
    rng, minutes = random.Random(seed), 10
    times = {f"w.{agent}": list(beats(agent, 60.0 * minutes, rng)) for agent in range(50)}
    at = Counter[str]()
    suspicion, flaps, oldest = Suspicion(BEAT), Counter[tuple[str, int]](), 0.0
    for step in range(round(60 * minutes / BEAT)):
        now = step * BEAT
        for agent, made in times.items():
            while at[agent] < len(made) and made[at[agent]] <= now:
                suspicion.heard(agent, made[at[agent]])
                at[agent] += 1
            if at[agent]:
                oldest = max(oldest, now - made[at[agent] - 1])
        for agent in suspicion.judge(now).suspected:
            flaps[agent, int(now / 60)] += 1
    assert len(times) == 50
    assert oldest < LEASE, "a lease that a late beat outlives is too short"
    for agent in times:
        assert sum(count for (who, _), count in flaps.items() if who == agent) <= minutes, (agent, flaps)
    assert max(flaps.values(), default=0) <= 2, "the first minute teaches"


def test_an_observer_that_was_frozen_suspects_nobody_and_may_say_so_of_nobody_for_three_ticks() -> None:
    suspicion = Suspicion(BEAT)

    def step(now: float, seen: float) -> tuple[bool, int]:
        """The observer looks at ``now`` and sees the beats up to ``seen``."""
        suspicion.health.ticked(now, BEAT)
        for agent in range(50):
            suspicion.heard(f"w.{agent}", seen - agent * BEAT / 50)
        return suspicion.health.sound, len(suspicion.judge(now).suspected)

    for number in range(50):
        assert step(number * BEAT, number * BEAT) == (True, 0)
    frozen = 49 * BEAT + 10 * LEASE
    # What it read before it froze looks ten leases old.
    assert step(frozen, 49 * BEAT) == (False, 0)
    assert suspicion.held
    seen = [step(frozen + number * BEAT, frozen + number * BEAT) for number in range(1, 5)]
    assert seen == [(False, 0), (False, 0), (True, 0), (True, 0)]


# -- real processes


@asynccontextmanager
async def workers(mesh: Mesh, url: str, count: int) -> AsyncIterator[dict[str, subprocess.Popen[bytes]]]:
    """So many agents, each a process of its own: id -> process."""
    began = [subprocess.Popen([sys.executable, "-c", APP, url, mesh.namespace]) for _ in range(count)]
    try:

        async def ready() -> dict[str, subprocess.Popen[bytes]]:
            by_pid = {one.fields["pid"]: one.id for one in await mesh.agents() if one.state == "ready"}
            found = {by_pid[str(process.pid)]: process for process in began if str(process.pid) in by_pid}
            return found if len(found) == count else {}

        yield await eventually(ready, 30)
    finally:
        for process in began:
            process.kill()
            process.wait()


async def told(mesh: Mesh, kind: str) -> list[str]:
    """The agents of which the members feed says so."""
    entries = await mesh.store.command("XRANGE", mesh.keys.members, "-", "+")
    fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]
    return [one["agent"] for one in fields if one["type"] == kind]


async def test_an_agent_that_was_frozen_buries_nobody_when_it_goes_on(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh, workers(mesh, url, 4) as processes:
        frozen, *_ = processes
        processes[frozen].send_signal(signal.SIGSTOP)
        await eventually(lambda: told(mesh, "died"), 10)
        # Ten leases would be ten seconds; what counts is that it missed everything for more than one.
        processes[frozen].send_signal(signal.SIGCONT)
        await eventually(lambda: _count(mesh, 4), 10)
        began = time.monotonic()
        await eventually(lambda: time.monotonic() - began > 1.5 * LEASE)
        assert await told(mesh, "died") == [frozen]
        assert await _count(mesh, 4)


async def test_when_most_are_frozen_together_for_a_moment_nobody_is_buried(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh, workers(mesh, url, 4) as processes:
        for id in list(processes)[1:]:
            processes[id].send_signal(signal.SIGSTOP)
        await eventually(lambda: _count(mesh, 1), 10)

        async def held() -> bool:
            entries = await mesh.store.command("XRANGE", mesh.keys.events(), "-", "+")
            return any("agents.held" in flat for _, flat in entries)

        await eventually(held, 2)
        for process in processes.values():
            process.send_signal(signal.SIGCONT)
        await eventually(lambda: _count(mesh, 4), 10)
        assert await told(mesh, "died") == []


async def _count(mesh: Mesh, wanted: int) -> bool:
    return len(await mesh.agents()) == wanted


@pytest.mark.slow
async def test_how_long_it_takes_to_doubt_and_to_bury(
    url: str, namespace: str, record_property: Callable[[str, object], None]
) -> None:
    observer = Agent("observer", lease=LEASE)

    @observer.on("nothing")
    async def nothing(_: object) -> None: ...

    doubted, buried = [], []
    async with Mesh.connect(url, namespace=namespace) as mesh:
        serving = asyncio.create_task(observer.serve(mesh))
        async with workers(mesh, url, 3):
            for _ in range(20):
                async with workers(mesh, url, 1) as processes:
                    to_doubt, to_bury = await _kill(mesh, observer, *processes.items())
                    doubted.append(to_doubt)
                    buried.append(to_bury)
        observer.stop()
        await serving
    for what, times in (("suspect", doubted), ("dead", buried)):
        record_property(what, f"p50 {quantiles(times, n=2)[0]:.3f} s, worst of {len(times)} {max(times):.3f} s")
    assert max(doubted) < LEASE
    assert max(buried) <= LEASE + 2 * BEAT + SWEEP


async def _kill(mesh: Mesh, observer: Agent, one: tuple[str, subprocess.Popen[bytes]]) -> tuple[float, float]:
    """Kill an agent that the observer has known for a while; seconds until it was suspect, and dead."""
    victim, process = one
    assert observer.serving
    detecting = observer.serving.detecting
    began = time.monotonic()
    wait = LEASE + random.random() * BEAT
    await eventually(lambda: victim in detecting.live and time.monotonic() - began > wait)
    process.kill()
    killed = time.monotonic()
    # Whose connections are gone may be known to be dead before its beats are late.
    await eventually(lambda: detecting.suspicion.why(victim) or victim not in detecting.live)
    doubted = time.monotonic() - killed

    async def dead() -> bool:
        return victim in await told(mesh, "died")

    await eventually(dead)
    return doubted, time.monotonic() - killed
