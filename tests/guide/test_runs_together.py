"""Runs among others: children, ends and undoing, two starts with one id, operators, code that changes, agents that die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from streammesh import Mesh, Run, RunHandle
from streammesh.errors import RunCancelled, RunConflict, RunFailed, RunNotFound
from tests.eventually import eventually
from tests.guide.conftest import Serve
from tests.guide.library import library, reaches, whats

ROOT = Path(__file__).resolve().parents[2]

# -- other runs


async def test_a_child_is_a_run_of_its_own(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("chapter")
    async def chapter(run: Run, n: int) -> int:
        return int(await run.call("double", n=n))

    @agent.workflow("book")
    async def book(run: Run) -> list[int]:
        return [await run.child("chapter", n=1), await run.child("chapter", id="second", n=2)]

    await serve(agent)
    run = await mesh.start("book", id="book")
    assert await run.result(10) == [2, 4]
    assert await mesh.run("book:second").result(10) == 4
    assert (await mesh.run("book:second").head()).fields["parent"] == "book"


async def test_cancel_lets_the_workflow_clean_up(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("careful")
    async def careful(run: Run) -> None:
        try:
            await run.signal("never")
        finally:
            await run.call("double", n=0)

    await serve(agent)
    run = await mesh.start("careful")
    await reaches(run, "parked")
    assert await run.cancel(by="ada") == "ok"
    with pytest.raises(RunCancelled, match="cancelled by ada"):
        await run.result(10)
    assert await whats(run) == ["start", "cancel", "call", "done", "end"]
    assert await run.cancel() == "closed"


async def test_terminate_runs_no_more_of_it(mesh: Mesh, serve: Serve) -> None:
    agent, cleaned_up = library(), []

    @agent.workflow("careless")
    async def careless(run: Run) -> None:
        try:
            await run.signal("never")
        except asyncio.CancelledError:
            cleaned_up.append(1)
            raise

    await serve(agent)
    run = await mesh.start("careless")
    await reaches(run, "parked")
    assert await run.terminate(by="ada") == "ok"
    with pytest.raises(RunCancelled, match="terminated by ada"):
        await run.result(10)
    assert cleaned_up == []


async def test_a_saga_undoes_what_was_done_in_reverse_order(mesh: Mesh, serve: Serve) -> None:
    agent, done = library(), []

    @agent.capability("do")
    async def do(what: str) -> None:
        done.append(what)

    @agent.workflow("travel")
    async def travel(run: Run) -> None:
        async with run.saga() as saga:
            for what in ("flight", "hotel"):
                await run.call("do", what=f"book {what}")
                saga.undo(run.call, "do", what=f"cancel {what}")
            await run.call("refuse")

    await serve(agent)
    with pytest.raises(RunFailed, match="not today"):
        await (await mesh.start("travel")).result(10)
    assert done == ["book flight", "book hotel", "cancel hotel", "cancel flight"]


async def test_how_far_it_is_can_be_read_without_waking_it(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("telling")
    async def telling(run: Run) -> None:
        run.set_status(phase="reading", pages=3)
        await run.signal("go-on")
        run.set_status(phase="done")

    await serve(agent)
    run = await mesh.start("telling")
    await reaches(run, "parked")
    assert await run.status() == {"phase": "reading", "pages": 3}
    assert (await run.head()).state == "parked"
    await run.signal("go-on")
    await run.result(10)
    assert await run.status() == {"phase": "done", "pages": 3}


async def test_a_long_one_continues_as_new(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("count-down")
    async def count_down(run: Run, left: int, total: int = 0) -> int:
        total += await run.call("double", n=left)
        if left > 1:
            run.continue_as_new(left=left - 1, total=total)
        return total

    await serve(agent)
    run = await mesh.start("count-down", left=3)
    assert await run.result(10) == 12
    assert await whats(run) == ["start", "call", "done", "end"]


# -- starts


async def test_two_starts_with_one_id_make_one_run(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("once")
    async def once(run: Run, n: int) -> int:
        return int(await run.call("double", n=n))

    first, second = await mesh.start("once", n=1, id="one"), await mesh.start("once", n=2, id="one")
    assert (first.created, second.created) == (True, False)
    with pytest.raises(RunConflict, match="one is there already"):
        await mesh.start("once", n=2, id="one", on_conflict="fail")
    await serve(agent)
    assert await second.result(10) == 2


async def test_a_run_may_be_replaced(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("wait")
    async def wait(run: Run, n: int) -> int:
        await run.signal("go")
        return n

    await serve(agent)
    run = await mesh.start("wait", n=1, id="one")
    await reaches(run, "parked")
    again = await mesh.start("wait", n=2, id="one", on_conflict="replace")
    assert again.created
    await again.signal("go")
    assert await again.result(10) == 2


async def test_a_raw_xadd_starts_a_run(mesh: Mesh, serve: Serve, redis: Redis) -> None:
    agent = library()

    @agent.workflow("once")
    async def once(run: Run, n: int) -> int:
        return int(await run.call("double", n=n))

    await serve(agent)
    await redis.xadd(mesh.keys.runs("once"), {"id": "typed", "payload": '{"n":21}'}) if mesh.keys.shards == 1 else None
    entry = await redis.xadd(mesh.keys.runs("once"), {"payload": '{"n":4}'})
    (id,) = await eventually(lambda: _raw_ids(redis, mesh, str(entry)))
    assert await mesh.run(id).result(10) == 8
    if mesh.keys.shards == 1:
        assert await mesh.run("typed").result(10) == 42


async def test_an_unknown_id_is_an_error_at_once(mesh: Mesh) -> None:
    with pytest.raises(RunNotFound, match="never started"):
        await mesh.run("no-such-run").result(5)
    with pytest.raises(RunNotFound):
        await mesh.run("no-such-run").head()
    with pytest.raises(RunNotFound):
        await mesh.run("no-such-run").signal("x")


# -- operators, and code that changes


async def test_a_paused_run_remembers_what_happens_and_goes_on_when_resumed(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("approval")
    async def approval(run: Run) -> Any:
        return await run.signal("approved")

    await serve(agent)
    run = await mesh.start("approval")
    await reaches(run, "parked")
    assert await run.pause(by="ada") == "ok"
    await run.signal("approved", "yes")
    assert (await run.head()).state == "paused"
    assert await run.resume() == "ok"
    assert await run.result(10) == "yes"


async def test_patched_lets_new_code_and_old_runs_live_together(mesh: Mesh, serve: Serve) -> None:
    before, after = library(), library()

    @before.workflow("greet")
    async def greet(run: Run) -> str:
        await run.call("double", n=1)
        await run.signal("go")
        return "old"

    @after.workflow("greet")
    async def greet_politely(run: Run) -> str:
        polite = run.patched("polite")
        await run.call("double", n=1)
        await run.signal("go")
        return "new" if polite else "old"

    await serve(before)
    old = await mesh.start("greet")
    await reaches(old, "parked")
    before.stop()
    await eventually(lambda: _nobody(mesh))
    await serve(after)
    new = await mesh.start("greet")
    await reaches(new, "parked")
    await old.signal("go")
    await new.signal("go")
    assert await new.result(10) == "new"
    assert await old.result(10) == "old"


async def test_changed_code_is_stuck_and_says_where(mesh: Mesh, serve: Serve) -> None:
    before, after, mended = library(), library(), library()

    @before.workflow("greet")
    async def greet(run: Run) -> int:
        first = await run.call("double", n=1)
        await run.signal("go")
        return int(first)

    @after.workflow("greet")
    async def greet_otherwise(run: Run) -> str:
        await run.signal("go")
        return "no call at all"

    mended.workflow("greet")(greet)
    await serve(before)
    run = await mesh.start("greet")
    await reaches(run, "parked")
    before.stop()
    await eventually(lambda: _nobody(mesh))
    await serve(after)
    await run.signal("go")
    await reaches(run, "stuck")
    said = (await run.head()).fields["error"]
    assert "call 'double'" in said
    assert "double.0" in said
    assert f"{Path(__file__).name}:" in said
    after.stop()
    await eventually(lambda: _nobody(mesh))
    await serve(mended)
    assert await run.resume() == "ok"
    assert await run.result(10) == 2


async def test_an_agent_without_the_version_leaves_it_alone(mesh: Mesh, serve: Serve) -> None:
    old, new = library(), library()

    @old.workflow("greet")
    async def greet(run: Run) -> str:
        return "version 1"

    @new.workflow("greet", version=2)
    async def greet2(run: Run) -> str:
        return "version 2"

    await serve(old)
    run = await mesh.start("greet", version=2)
    other = await mesh.start("greet")
    assert await other.result(10) == "version 1"
    assert (await run.head()).state == "queued"
    assert [one.fields["workflows"] for one in await mesh.agents()] == ["greet"]
    await serve(new)
    assert await run.result(10) == "version 2"


# -- death


APP = """
import os
from streammesh import Agent, Run

agent = Agent("mortal", lease=1.0)

@agent.workflow("travel")
async def travel(run: Run) -> list:
    seen = [await run.step(os.getpid), await run.call("double", n=1)]
    await run.signal("go")
    return [*seen, await run.step(os.getpid)]

@agent.capability("double")
async def double(n: int) -> int:
    return 2 * n

if __name__ == "__main__":
    agent.run()
"""


@pytest.mark.parametrize("parked", [True, False], ids=["parked", "in-the-middle"])
async def test_when_its_executor_is_killed_another_goes_on(mesh: Mesh, tmp_path: Path, parked: bool) -> None:
    app = tmp_path / "mortal.py"
    app.write_text(
        APP if parked else APP.replace('await run.signal("go")', "await run.step(__import__('time').sleep, 0.5)")
    )
    processes = []

    def agent() -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "STREAMMESH_REDIS_URL": mesh.url, "STREAMMESH_NAMESPACE": mesh.namespace,
        }  # fmt: skip
        processes.append(subprocess.Popen([sys.executable, str(app)], env=environment))
        return processes[-1]

    try:
        first = agent()
        run = await mesh.start("travel", id="travel")
        await eventually(lambda: _has(run, "done"), timeout=20)
        if parked:
            await reaches(run, "parked")
        first.send_signal(signal.SIGKILL)
        first.wait()
        second = agent()
        await run.signal("go")
        here, doubled, there = await run.result(30)
        assert (here, doubled, there) == (first.pid, 2, second.pid)
        steps = [record["path"] for record in await run.history() if record["what"] == "step"]
        assert len(steps) == len(set(steps))
        assert (await mesh.task("travel:double.0").record()).attempt == 1
        # The living bury the dead one, and what belonged to it.
        await eventually(lambda: _buried(mesh, "mortal.1"), timeout=20)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


async def _has(run: RunHandle, what: str) -> bool:
    return what in await whats(run)


async def _nobody(mesh: Mesh) -> bool:
    return not await mesh.agents()


async def _raw_ids(redis: Redis, mesh: Mesh, entry: str) -> list[str]:
    prefix = f"{mesh.keys.prefix()}run:"
    return [key.removeprefix(prefix) async for key in redis.scan_iter(f"{prefix}*{entry}")]


async def _buried(mesh: Mesh, agent: str) -> bool:
    inboxes = [box(agent, shard) for shard in range(mesh.keys.shards) for box in (mesh.keys.inbox, mesh.keys.mail)]
    return not any(await mesh.store.commands([("EXISTS", inbox) for inbox in inboxes]))
