"""Crash points beyond lost calls: an executor that is frozen past its lease, a server that lost the end of its data."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streammesh import Agent, Mesh, Run
from tests.eventually import eventually
from tests.runs.tale import RESULT
from tests.runs.test_crashes import ROOT, judge
from tests.servers import Server

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def teller(url: str, namespace: str) -> AsyncIterator[asyncio.subprocess.Process]:
    words = [sys.executable, "-m", "tests.runs.tale", url, namespace, "never", "0"]
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_an_executor_frozen_past_its_lease_changes_nothing_when_it_comes_back(url: str, namespace: str) -> None:
    """c13: it goes on where it stood, and everything it says is refused."""
    async with Mesh.connect(url, namespace=namespace) as mesh, teller(url, namespace) as frozen:
        run = await mesh.start("tale", id="r")

        async def running() -> bool:
            return (await run.head()).state == "running"

        await eventually(running, timeout=20)
        frozen.send_signal(signal.SIGSTOP)
        await run.signal("word", "told", id="only")
        async with teller(url, namespace):
            assert await run.result(30) == RESULT
            frozen.send_signal(signal.SIGCONT)

            async def back() -> bool:
                return len(await mesh.registry.agents()) == 2

            await eventually(back, timeout=10)
            await judge(mesh, url, namespace, steps=2)
            assert int((await run.head()).fields["attempt"]) >= 2


def cut(folder: Path, commands: int) -> None:
    """Take the last so many commands off the append-only file, as if they had not been written when the power went."""
    (file,) = folder.glob("appendonlydir/*.incr.aof")
    data = file.read_bytes()
    starts, at = [], 0
    while at < len(data):
        if data[at : at + 1] == b"#":
            at = data.index(b"\n", at) + 1
            continue
        starts.append(at)
        end = data.index(b"\r\n", at)
        words, at = int(data[at + 1 : end]), end + 2
        for _ in range(words):
            end = data.index(b"\r\n", at)
            at = end + 2 + int(data[at + 1 : end]) + 2
    file.write_bytes(data[: starts[-min(commands, len(starts))]])


@pytest.mark.parametrize("commands", [1, 7, 19, 60, 150])
async def test_a_server_that_lost_the_end_of_its_data_goes_on_from_what_it_has(
    tmp_path: Path, namespace: str, commands: int
) -> None:
    """c14: the run ends once; what was lost is done again. Clients say again what they said, as after a restore."""
    server = Server("valkey", tmp_path, {"appendfsync": "always"})
    server.start()
    try:
        async with Mesh.connect(server.url, namespace=namespace, patience=20) as mesh:
            async with teller(server.url, namespace):
                run = await mesh.start("tale", id="r")
                await run.signal("word", "told", id="only")
                await run.result(20)
            server.kill()
            cut(tmp_path, commands)
            server.start()
            async with teller(server.url, namespace):
                run = await mesh.start("tale", id="r")
                await run.signal("word", "told", id="only")
                assert await run.result(30) == RESULT
                await judge(mesh, server.url, namespace, steps=2)
    finally:
        server.stop()


async def test_an_agent_of_a_newer_version_does_not_touch_runs_of_the_old_one(url: str, namespace: str) -> None:
    """c17: it waits for an agent that has its version, and goes on there."""

    def make(name: str, version: int) -> Agent:
        agent = Agent(name, lease=1.0)

        @agent.workflow("order", version=version)
        async def order(run: Run) -> list[int]:
            return [version, await run.signal("go")]

        return agent

    async with Mesh.connect(url, namespace=namespace) as mesh:
        old, new, late = make("old", 1), make("new", 2), make("late", 1)
        serving = asyncio.create_task(old.serve(mesh))
        run = await mesh.start("order", id="r")

        async def parked() -> bool:
            return (await run.head()).state == "parked"

        await eventually(parked, timeout=10)
        old.stop()
        await serving
        serving = asyncio.create_task(new.serve(mesh))
        assert (await (await mesh.start("order", version=2, signals=[("go", 5)])).result(10)) == [2, 5]
        await run.signal("go", 6)
        # The newer one has done a whole run since: this one was there to be taken, and was not.
        assert (await (await mesh.start("order", version=2, signals=[("go", 7)])).result(10)) == [2, 7]
        assert (await run.head()).state == "queued"
        newer = asyncio.create_task(late.serve(mesh))
        assert await run.result(10) == [1, 6]
        for agent in (new, late):
            agent.stop()
        await asyncio.gather(serving, newer)
