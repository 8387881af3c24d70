"""Crash points: a request dropped, a reply lost, the executing process killed, around every script call of a small run.

Whatever is lost, the run ends once, with the right result, each step is recorded once, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from streammesh import Mesh
from streammesh.store import Link
from tests.eventually import eventually
from tests.runs.tale import RESULT, make_agent

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
SCRIPTS = ("run_start", "task_claim", "run_commit", "run_deliver", "task_settle", "due_fire", "task_sweep")


class Losses:
    """Counts the calls of each script, and loses the n-th of one: the request, or only the reply."""

    def __init__(self, mesh: Mesh, script: str = "", number: int = 0, what: str = "") -> None:
        self.calls: Counter[str] = Counter()
        self.lost = 0
        names = {mesh.store.script(name).digest: name for name in SCRIPTS}
        call = Link.call

        async def losing(link: Link, *args: Any, **options: Any) -> Any:
            name = names.get(args[1], "") if args[0] == "EVALSHA" else ""
            # A claim that finds nothing is not what is looked for; what it finds is in its reply.
            if name:
                self.calls[name] += 1
            mine = name == script and self.calls[name] == number
            if mine and what == "request":
                self.lost += 1
                raise redis.ConnectionError("the request was dropped")
            reply = await call(link, *args, **options)
            if mine and what == "reply":
                self.lost += 1
                raise redis.ConnectionError("the reply was lost")
            return reply

        self.losing = losing


async def play(mesh: Mesh) -> Any:
    handle = await mesh.start("tale", id="r")
    await handle.signal("word", "told", id="only")
    return await handle.result(30)


async def judge(mesh: Mesh, url: str, namespace: str, *, steps: int = 1) -> None:
    """The run ended once, and nothing of it is left over."""
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    with contextlib.closing(client):
        prefix = mesh.keys.prefix()
        for id in ("r", "r:kid.0"):
            journal = await mesh.run(id).history()
            assert [record["what"] for record in journal].count("end") == 1
            assert journal[-1]["what"] == "end"
            for what, key in (("step", "path"), ("call", "path"), ("timer", "path"), ("done", "of"), ("fired", "of")):
                paths = [record[key] for record in journal if record["what"] == what]
                assert len(paths) == len(set(paths)), journal
            head = await mesh.run(id).head()
            assert head.state == "succeeded"
            assert head.open == {}
        assert [record["what"] for record in await mesh.run("r").history()].count("signal") == 1
        deeds = client.lrange(f"deeds:{namespace}", 0, -1)
        assert 1 <= len(deeds) <= steps
        assert client.zcard(prefix + "due") == 0

        def empty() -> bool:
            for stream in ("runs:tale", "runs:kid", "tasks:double"):
                assert client.xlen(prefix + stream) == 0, stream
                assert client.xpending(prefix + stream, "agents")["pending"] == 0, stream
            return True

        await eventually(empty, timeout=10)
        for key in client.scan_iter(prefix + "task:*"):
            assert client.hget(key, "state") == "succeeded"
        client.delete(f"deeds:{namespace}")


@contextlib.asynccontextmanager
async def serving(mesh: Mesh, url: str, namespace: str) -> AsyncIterator[None]:
    agent = make_agent(url, namespace)
    serving = asyncio.create_task(agent.serve(mesh))
    try:
        yield
    finally:
        agent.stop()
        await serving


@pytest.mark.parametrize("what", ["request", "reply"])
@pytest.mark.parametrize("script", SCRIPTS)
async def test_every_call_may_be_lost(
    url: str, namespace: str, script: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th call of the script, for each n until the run makes fewer of them."""
    for number in range(1, 13):
        name = f"{namespace}-{number}"
        async with Mesh.connect(url, namespace=name) as mesh:
            losses = Losses(mesh, script, number, what)
            with monkeypatch.context() as patch:
                patch.setattr(Link, "call", losses.losing)
                async with serving(mesh, url, name):
                    assert await play(mesh) == RESULT
                    await judge(mesh, url, name)
        if not losses.lost:
            assert number > 1, "the script was never called"
            return


async def _killed(url: str, namespace: str, when: str, commit: int) -> bool:
    """Whether the process that executes the run was killed: it has fewer commits, at some number."""
    words = [sys.executable, "-m", "tests.runs.tale", url, namespace]
    victim = await asyncio.create_subprocess_exec(*words, when, str(commit), cwd=ROOT, stderr=subprocess.DEVNULL)
    heir: asyncio.subprocess.Process | None = None
    try:
        async with Mesh.connect(url, namespace=namespace) as mesh:
            playing = asyncio.create_task(play(mesh))
            dying = asyncio.create_task(victim.wait())
            await asyncio.wait({playing, dying}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            # Its last commit may have ended the run: then both are there.
            killed = victim.returncode is not None or (when == "after" and await _dies(dying))
            if killed:
                heir = await asyncio.create_subprocess_exec(*words, "never", "0", cwd=ROOT, stderr=subprocess.DEVNULL)
            assert await playing == RESULT
            await judge(mesh, url, namespace, steps=1 + (when == "before"))
            return killed
    finally:
        for process in (victim, heir):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()


async def _dies(dying: asyncio.Task[int]) -> bool:
    done, _ = await asyncio.wait({dying}, timeout=0.3)
    return bool(done)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_executing_process_may_be_killed_at_every_commit(url: str, namespace: str, when: str) -> None:
    deaths = 0
    for first in range(1, 25, 4):
        fates = await asyncio.gather(
            *(_killed(url, f"{namespace}-{commit}", when, commit) for commit in range(first, first + 4))
        )
        deaths += sum(fates)
        if not all(fates):
            break
    assert deaths >= 5
