"""How things end: children by their parent's policy, tasks of a group, steps that run at most once, runs that go on as new."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streammesh import Agent, Mesh, Run
from streammesh.errors import InvalidName, RunCancelled, RunFailed
from streammesh.testing import run_until_idle
from tests.guide.conftest import Serve
from tests.guide.library import library, reaches, whats


def parents() -> tuple[Agent, list[str]]:
    """An agent with a child that waits, and what the child did when it was asked to stop."""
    agent, cleaned = library(), list[str]()

    @agent.workflow("kid")
    async def kid(run: Run) -> str:
        try:
            return f"heard {await run.signal('word')}"
        except asyncio.CancelledError:
            cleaned.append(run.id)
            raise

    return agent, cleaned


# -- children


@pytest.mark.parametrize("close", ["cancel", "terminate", "abandon"])
@pytest.mark.parametrize("waits", [True, False], ids=["waited-for", "detached"])
async def test_a_child_ends_with_its_parent_as_its_policy_says(
    mesh: Mesh, serve: Serve, close: str, waits: bool
) -> None:
    agent, cleaned = parents()

    @agent.workflow("parent")
    async def parent(run: Run) -> str:
        if waits:
            waiting = asyncio.create_task(run.child("kid", id="kid", close=close))
            await run.signal("end")
            return str(waiting.done())
        detached = await run.child("kid", id="kid", wait=False, close=close)
        await run.signal("end")
        return str(detached)

    await serve(agent)
    run = await mesh.start("parent", id="p")
    kid = mesh.run("p:kid")
    await reaches(run, "parked")
    await reaches(kid, "parked")
    await run.signal("end")
    assert await run.result(10) == ("False" if waits else "p:kid")
    if close == "abandon":
        await kid.signal("word", "it")
        assert await kid.result(10) == "heard it"
    else:
        with pytest.raises(RunCancelled, match="its parent" if close == "cancel" else "terminated with its parent"):
            await kid.result(10)
    assert cleaned == (["p:kid"] if close == "cancel" else [])


async def test_a_detached_child_may_end_first_and_its_parent_goes_on(mesh: Mesh, serve: Serve) -> None:
    agent, _ = parents()

    @agent.workflow("parent")
    async def parent(run: Run) -> Any:
        detached = await run.child("kid", wait=False)
        return [detached, await run.signal("end")]

    await serve(agent)
    run = await mesh.start("parent", id="p")
    await reaches(run, "parked")
    await mesh.run("p:kid.0").signal("word", 1)
    assert await mesh.run("p:kid.0").result(10) == "heard 1"
    await run.signal("end", 2)
    assert await run.result(10) == ["p:kid.0", 2]


async def test_a_child_that_two_wait_for_goes_on_when_one_gives_up(mesh: Mesh, serve: Serve) -> None:
    agent, cleaned = parents()

    @agent.workflow("parent")
    async def parent(run: Run) -> Any:
        first, second = (asyncio.create_task(run.child("kid", id="kid")) for _ in range(2))
        await run.signal("one")
        first.cancel()
        await run.signal("two")
        if not await run.signal("both"):
            return await second
        second.cancel()
        return await run.signal("end")

    await serve(agent)
    for both in (False, True):
        run = await mesh.start("parent", id=f"p-{both}")
        kid = mesh.run(f"{run.id}:kid")
        await reaches(run, "parked")
        await reaches(kid, "parked")
        await run.signal("one")
        await run.signal("two")
        await run.signal("both", both)
        if both:
            # Nobody waits for it any more.
            with pytest.raises(RunCancelled):
                await kid.result(10)
            await run.signal("end", "ended")
            assert await run.result(10) == "ended"
        else:
            await reaches(run, "parked")
            assert cleaned == []
            await kid.signal("word", "it")
            assert await run.result(10) == "heard it"


# -- groups


async def test_a_failure_in_a_group_takes_the_others_back(mesh: Mesh, serve: Serve) -> None:
    agent = library()

    @agent.workflow("group")
    async def group(run: Run, catch: bool) -> Any:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(run.call("nobody-does-this"))
                tasks.create_task(run.sleep(86_400))
                tasks.create_task(run.call("refuse"))
        except BaseExceptionGroup as several:
            if not catch:
                raise
            return [type(one).__name__ for one in several.exceptions]

    await serve(agent)
    run = await mesh.start("group", catch=True, id="g")
    assert await run.result(10) == ["StepFailed"]
    assert (await run.head()).open == {}
    assert (await mesh.task("g:0:nobody-does-this.0").record()).state == "cancelled"
    with pytest.raises(RunFailed, match="ExceptionGroup"):
        await (await mesh.start("group", catch=False)).result(10)


@pytest.mark.parametrize("how", ["group", "gather", "task"])
async def test_going_on_as_new_may_be_asked_for_in_any_task(mesh: Mesh, serve: Serve, how: str) -> None:
    agent = library()

    @agent.workflow("rounds")
    async def rounds(run: Run, n: int = 0) -> int:
        async def step() -> int:
            doubled = await run.call("double", n=n)
            if n < 2:
                run.continue_as_new(n=n + 1)
            return int(doubled)

        if how == "group":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(run.call("double", n=0))
                last = tasks.create_task(step())
            return last.result()
        if how == "gather":
            return (await asyncio.gather(run.call("double", n=0), step()))[1]
        return await asyncio.create_task(step())

    await serve(agent)
    run = await mesh.start("rounds")
    assert await run.result(10) == 4
    assert (await run.head()).fields["generation"] == "2"


# -- steps at most once, and what a start brings


async def test_a_step_that_runs_at_most_once_is_on_record_before_it_runs(mesh: Mesh, serve: Serve) -> None:
    agent, seen = library(), list[list[str]]()

    async def charge(id: str) -> str:
        seen.append(await whats(mesh.run(id)))
        return "charged"

    @agent.workflow("pay")
    async def pay(run: Run) -> str:
        return str(await run.step(charge, run.id, at_most_once=True))

    await serve(agent)
    run = await mesh.start("pay")
    assert await run.result(10) == "charged"
    assert seen == [["start", "begin"]]
    assert await whats(run) == ["start", "begin", "step", "end"]


async def test_signals_that_a_start_brings_say_when_they_came(mesh: Mesh, serve: Serve) -> None:
    run = await mesh.start("anything", signals=[("go", 1), ("go", {"a": [2]})])
    start, first, second = await run.history()
    assert first == {"what": "signal", "name": "go", "payload": 1, "at": start["at"]}
    assert second["payload"] == {"a": [2]}
    await run.terminate()


async def test_a_saga_that_is_parked_in_the_middle_undoes_nothing(mesh: Mesh, serve: Serve) -> None:
    agent, done = library(), list[str]()

    @agent.capability("do")
    async def do(what: str) -> None:
        done.append(what)

    @agent.workflow("travel")
    async def travel(run: Run) -> str:
        async with run.saga() as saga:
            await run.call("do", what="book")
            saga.undo(run.call, "do", what="cancel")
            await run.signal("go")
        return "travelled"

    await serve(agent)
    run = await mesh.start("travel")
    await reaches(run, "parked")
    await run.signal("other")
    await reaches(run, "parked")
    await run.signal("go")
    assert await run.result(10) == "travelled"
    assert done == ["book"]


async def test_ids_of_steps_live_with_their_run_however_long_it_is_called(mesh: Mesh) -> None:
    """Ids that grow too long are shortened behind the part that decides the shard; a run that would leave no room is refused."""
    agent = Agent("far")

    @agent.capability("a-capability-with-a-name-of-its-own")
    async def work(n: int) -> int:
        return n + 1

    @agent.workflow("long")
    async def long(run: Run, depth: int) -> int:
        deeper: int = await run.child("long", depth=depth - 1) if depth else 0
        return int(await run.call("a-capability-with-a-name-of-its-own", n=deeper))

    run = await mesh.start("long", depth=6, id="r" * 80)
    await run_until_idle(mesh, agent)
    assert await run.result(timeout=10) == 7
    with pytest.raises(InvalidName, match="before the first colon"):
        await mesh.start("long", depth=0, id="r" * 81)
