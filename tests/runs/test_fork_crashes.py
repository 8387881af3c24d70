"""A fork whose executor is killed around its first commits: what was open is set in motion again once, whoever goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from streammesh import Mesh
from tests.eventually import eventually
from tests.runs.tale import make_agent

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("commit", [1, 2])
async def test_what_was_open_is_set_in_motion_once(url: str, namespace: str, when: str, commit: int) -> None:
    words = [sys.executable, "-m", "tests.runs.tale", url, namespace]
    async with Mesh.connect(url, namespace=namespace) as mesh:
        agent = make_agent(url, namespace)
        serving = asyncio.create_task(agent.serve(mesh))
        run = await mesh.start("wide", id="r")
        await eventually(lambda: _is(mesh, "r", "parked"), timeout=20)
        agent.stop()
        await serving
        fork = await run.fork("double.1", id="f")
        victim = await asyncio.create_subprocess_exec(*words, when, str(commit), cwd=ROOT, stderr=subprocess.DEVNULL)
        heir: asyncio.subprocess.Process | None = None
        try:
            assert await asyncio.wait_for(victim.wait(), 30) == -9
            heir = await asyncio.create_subprocess_exec(*words, "never", "0", cwd=ROOT, stderr=subprocess.DEVNULL)
            await eventually(lambda: _is(mesh, "f", "parked"), timeout=30)
            journal = await fork.history()
            assert [record["paths"] for record in journal if record["what"] == "reissued"] == [["0:nobody.0"]]
            assert (await fork.head()).open == {"0:nobody.0": "task f:0:nobody.0"}
            streams = [mesh.keys.tasks("nobody", "normal", shard) for shard in range(mesh.keys.shards)]
            assert sum(await mesh.store.commands([("XLEN", stream) for stream in streams])) == 2
            for one in (run, fork):
                await one.skip("0:nobody.0", one.id)
                assert await one.result(20) == [2, 4, one.id]
        finally:
            for process in (victim, heir):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()


async def _is(mesh: Mesh, id: str, state: str) -> bool:
    return (await mesh.run(id).head()).state == state
