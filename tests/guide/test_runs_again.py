"""Running a part anew: forks begin where another run was, and an operator may answer for a step that never will."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streammesh import Mesh, Run
from streammesh.errors import RunConflict, RunFailed, RunNotFound, StepNotFound
from tests.eventually import eventually
from tests.guide.conftest import Serve
from tests.guide.library import library, reaches, whats

# -- forks


async def test_a_fork_keeps_what_was_done_before_and_runs_the_rest_anew(mesh: Mesh, serve: Serve) -> None:
    agent, done, broken = library(), list[str](), True

    @agent.capability("do")
    async def do(what: str) -> str:
        done.append(what)
        if what == "print" and broken:
            raise ValueError("no paper")
        return what.upper()

    @agent.workflow("press")
    async def press(run: Run) -> list[str]:
        return [await run.call("do", what=what) for what in ("set", "print", "bind")]

    await serve(agent)
    run = await mesh.start("press", id="first")
    with pytest.raises(RunFailed, match="no paper"):
        await run.result(10)
    broken = False
    fork = await run.fork("do.1", id="second")
    assert await fork.result(10) == ["SET", "PRINT", "BIND"]
    assert done == ["set", "print", "print", "bind"]
    head = (await fork.head()).fields
    assert (head["forked_of"], head["forked_from"]) == ("first", "do.1")
    # The same fork again is that fork; another one needs another id. The run that was forked stays as it was.
    assert not (await run.fork("do.1", id="second")).created
    with pytest.raises(RunConflict, match="another id"):
        await run.fork("do.0", id="second")
    assert (await run.head()).state == "failed"


async def test_of_a_running_run_what_was_open_is_set_in_motion_again(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("kid")
    async def kid(run: Run) -> str:
        return f"{run.id} heard {await run.signal('word')}"

    @agent.workflow("parent")
    async def parent(run: Run) -> list[Any]:
        async def late() -> str:
            try:
                async with asyncio.timeout(86_400):
                    return str(await run.signal("never"))
            except TimeoutError:
                return "late"

        first = await run.call("double", n=1)
        waiting = asyncio.create_task(late())
        child = asyncio.create_task(run.child("kid", id="kid"))
        second = await run.call("double", n=2)
        answer = await run.signal("go")
        waiting.cancel()
        return [first, second, answer, await child]

    await serve(agent)
    run = await mesh.start("parent", id="origin")
    await reaches(run, "parked")
    fork = await run.fork("double.1", id="copy")
    await reaches(fork, "parked")
    opened = (await fork.head()).open
    assert {value.rpartition(" ")[0] for value in opened.values()} == {"child copy:kid", "timer"}
    assert "reissued" in await whats(fork)
    for one in (run, fork):
        await mesh.run(f"{one.id}:kid").signal("word", one.id)
        await one.signal("go", 5)
        assert await one.result(10) == [2, 4, 5, f"{one.id}:kid heard {one.id}"]


async def test_a_stuck_run_is_forked_at_the_step_that_the_new_code_changed(mesh: Mesh, serve: Serve) -> None:
    before, after = library(), library()

    @before.workflow("sum")
    async def total(run: Run) -> int:
        return int(await run.call("double", n=1)) + int(await run.call("double", n=10)) + int(await run.signal("go"))

    @after.workflow("sum")
    async def other_total(run: Run) -> int:
        one = int(await run.call("double", n=1))
        try:
            return one + int(await run.call("refuse"))
        except Exception:
            return one

    await serve(before)
    run = await mesh.start("sum")
    await reaches(run, "parked")
    before.stop()
    await eventually(lambda: _nobody(mesh))
    await serve(after)
    await run.signal("go", 1)
    await reaches(run, "stuck")
    assert await (await run.fork("double.1")).result(10) == 2
    await run.terminate()


async def test_a_fork_may_have_another_input_and_needs_a_step(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("add")
    async def add(run: Run, more: int) -> int:
        return int(await run.call("double", n=1)) + int(await run.call("double", n=more))

    await serve(agent)
    run = await mesh.start("add", more=2)
    assert await run.result(10) == 6
    assert await (await run.fork("double.1", input={"more": 5})).result(10) == 12
    with pytest.raises(StepNotFound, match=r"the run has: double\.0, double\.1"):
        await run.fork("double.7")
    with pytest.raises(RunNotFound):
        await mesh.run("no-such-run").fork("double.0")


# -- skipping


async def test_an_operator_may_answer_for_a_step(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("patient")
    async def patient(run: Run) -> list[Any]:
        answer = await run.call("nobody-does-this")
        await run.sleep(86_400)
        return [answer, await run.call("double", n=2)]

    await serve(agent)
    run = await mesh.start("patient", id="patient")
    await reaches(run, "parked")
    assert await run.skip("nobody-does-this.0", {"ok": True}, by="ada") == "ok"
    await reaches(run, "parked")
    assert (await mesh.task("patient:nobody-does-this.0").record()).state == "cancelled"
    assert await run.skip("timer.0", by="ada") == "ok"
    assert await run.result(10) == [{"ok": True}, 4]
    by = {record["of"]: record.get("by") for record in await run.history() if "of" in record}
    assert by == {"nobody-does-this.0": "ada", "timer.0": "ada", "double.0": None}
    assert await run.skip("double.0") == "closed succeeded"


async def test_a_stuck_run_is_answered_for_and_goes_on_with_mended_code(mesh: Mesh, serve: Serve) -> None:
    before, changed, mended = library(), library(), library()

    @before.workflow("ask")
    async def ask(run: Run) -> Any:
        answer = asyncio.create_task(run.call("nobody-does-this"))
        return [await run.signal("go"), await answer]

    @changed.workflow("ask")
    async def ask_nobody(run: Run) -> Any:
        return [await run.signal("go")]

    mended.workflow("ask")(ask)
    await serve(before)
    run = await mesh.start("ask")
    await reaches(run, "parked")
    before.stop()
    await eventually(lambda: _nobody(mesh))
    await serve(changed)
    await run.signal("go", 1)
    await reaches(run, "stuck")
    path = "0:nobody-does-this.0"
    with pytest.raises(StepNotFound, match=f"open: {path}"):
        await run.skip("double.0")
    assert await run.skip(path, 7) == "ok"
    assert (await run.head()).state == "stuck"
    changed.stop()
    await eventually(lambda: _nobody(mesh))
    await serve(mended)
    assert await run.resume() == "ok"
    assert await run.result(10) == [1, 7]


async def _nobody(mesh: Mesh) -> bool:
    return not await mesh.agents()
