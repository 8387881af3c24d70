"""Schedules and death: an occurrence is started once and in its turn, whoever is killed in between."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from streammesh import Mesh
from streammesh.movable import MeshClock
from streammesh.testing import working
from tests.cli.conftest import Process, Spawner
from tests.cli.press import agent as press
from tests.eventually import eventually


@pytest.fixture
def spawn(tmp_path: Path, url: str, namespace: str) -> Iterator[Spawner]:
    spawner = Spawner(tmp_path, url, namespace)
    yield spawner
    spawner.close()


@pytest.mark.parametrize("kind", ["workflow", pytest.param("task", marks=pytest.mark.slow)])
async def test_agents_are_killed_while_it_fires(url: str, namespace: str, spawn: Spawner, kind: str) -> None:
    """Three agents, of which one is killed again and again; every second of a dozen is started once."""

    def more() -> Process:
        return spawn("agent", "--app", "tests.cli.press:agent")

    async with Mesh.connect(url, namespace=namespace, shards=3) as mesh:
        agents = [more() for _ in range(3)]
        for one in agents:
            one.says(" ready ")
        target = (
            {"workflow": "page", "input": {"words": []}}
            if kind == "workflow"
            else {"task": "set-type", "input": {"word": "a"}}
        )
        schedule = await mesh.schedule("ticking", every=1, overlap="allow", missed="all", **target)  # type: ignore[arg-type]
        first = (await schedule.record()).next_at
        assert first is not None
        for count in (2, 4, 6, 8, 12):

            async def so_far(count: int = count) -> bool:
                return (await schedule.record()).fired >= count

            await eventually(so_far, timeout=25, what=f"{count} were started")
            # Without a moment to say goodbye; its group, because it may have children.
            os.killpg(agents[0].popen.pid, signal.SIGKILL)
            agents = [*agents[1:], more()]
        await schedule.pause()
        record = await schedule.record()
        expected = [f"ticking:{first + timedelta(seconds=n):%Y%m%dT%H%M%SZ}" for n in range(record.fired)]
        events = await mesh.store.command("XRANGE", mesh.keys.events(mesh.keys.shard_of("ticking")), "-", "+")
        told = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in events]
        started = [one["run" if kind == "workflow" else "task"] for one in told if one["type"] == "schedule.fired"]
        assert started == expected
        assert (record.last, record.missed, record.skipped) == (expected[-1], 0, 0)
        for id in expected:
            if kind == "workflow":
                assert [one["what"] for one in await mesh.run(id).history()].count("start") == 1
            else:
                assert await mesh.task(id).result(15) == "A"


async def test_whoever_took_it_and_died_is_succeeded_two_seconds_later(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        clock = await MeshClock.take(mesh)
        schedule = await mesh.schedule("hourly", task="set-type", input={"word": "a"}, every=3600)
        first = (await schedule.record()).next_at
        assert isinstance(first, datetime)
        await clock.jump(first - await clock.now() + timedelta(milliseconds=10))
        # An agent is told of it, and does nothing more.
        assert (await mesh.timers.fire()).others == ("schedule hourly",)
        assert (await mesh.timers.fire()).others == ()
        async with working(mesh, press):
            assert (await schedule.record()).fired == 0
            await clock.advance(seconds=3)
            assert await mesh.task(f"hourly:{first:%Y%m%dT%H%M%SZ}").result(5) == "A"
        assert (await schedule.record()).fired == 1


async def test_a_firing_whose_reply_was_lost_starts_nothing_more(url: str, namespace: str) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        clock = await MeshClock.take(mesh)
        schedule = await mesh.schedule("hourly", workflow="page", input={"words": []}, every=3600)
        await clock.jump(hours=1, seconds=1)
        run = mesh.store.run
        calls: list[str] = []

        async def twice(name: str, *rest: object) -> object:
            if name == "schedule_fire":
                calls.append(str(await run(name, *rest)))  # type: ignore[arg-type]
            return await run(name, *rest)  # type: ignore[arg-type]

        mesh.store.run = twice  # type: ignore[method-assign,assignment]
        assert await mesh.schedules.fire("hourly")
        assert calls[0] == "ok"
        assert set(calls[1:]) <= {"stale"}
        assert (await schedule.record()).fired == 1
