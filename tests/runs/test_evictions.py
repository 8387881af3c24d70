"""An activation that is let go of in the middle of an await leaves nothing half done: its `finally` blocks have not been."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streammesh import Agent, Mesh, Run
from streammesh.activate import _Activation
from tests.eventually import eventually

pytestmark = pytest.mark.anyio


class Clerk:
    """An agent whose workflow waits in a `try`, and has all sorts of things to do in its `finally`."""

    def __init__(self, name: str = "clerk") -> None:
        self.agent = Agent(name, lease=1.0)
        self.deeds: Counter[str] = Counter()
        self.going, self.gate = asyncio.Event(), asyncio.Event()

        def deed(what: str) -> str:
            self.deeds[what] += 1
            return what

        async def hold() -> None:
            self.deeds["held"] += 1
            self.going.set()
            await self.gate.wait()

        @self.agent.capability("clean")
        async def clean() -> str:
            return deed("cleaned by a task")

        @self.agent.workflow("leaf")
        async def leaf(run: Run) -> str:
            return await run.step(deed, "cleaned by a child")

        @self.agent.workflow("careful")
        async def careful(run: Run, holds: bool = False) -> list[Any]:
            said: list[Any] = []
            try:
                try:
                    async with asyncio.TaskGroup() as group:
                        waiting = group.create_task(run.signal("go"))
                        if holds:
                            group.create_task(run.step(hold))
                    said.append(waiting.result())
                finally:
                    run.set_status(inner="left")
                    said.append(await run.step(deed, "cleaned by a step"))
                    said.append(await run.call("clean"))
            except BaseException as error:
                said.append(type(error).__name__)
                raise
            finally:
                said.append((await run.redis(("INCR", run.key("n"))))[0])
                said.append(await run.child("leaf"))
            return said

    @contextlib.asynccontextmanager
    async def serving(self, mesh: Mesh) -> AsyncIterator[None]:
        work = asyncio.create_task(self.agent.serve(mesh))
        try:
            yield
        finally:
            self.gate.set()
            self.agent.stop()
            await work


ALL = ["told", "cleaned by a step", "cleaned by a task", 1, "cleaned by a child"]
ONCE = {"cleaned by a step": 1, "cleaned by a task": 1, "cleaned by a child": 1}


async def untouched(mesh: Mesh, records: int = 1) -> None:
    """The run is where it was: nothing of any `finally` is in the journal, in motion, or anywhere else."""
    run = mesh.run("r")
    head = await run.head()
    assert (await run.status(), head.open) == ({}, {})
    assert len(await run.history()) == records
    assert await mesh.store.command("EXISTS", mesh.keys.user("n"), mesh.keys.due()) == 0
    for stream in (mesh.keys.tasks("clean"), mesh.keys.runs("leaf")):
        assert await mesh.store.command("XLEN", stream) == 0


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose activations were let go of."""
    ids: list[str] = []
    close = _Activation.close

    def counted(self: _Activation) -> None:
        close(self)
        ids.append(self._id)

    monkeypatch.setattr(_Activation, "close", counted)
    return ids


async def test_one_that_parks_in_the_middle_of_an_await(url: str, namespace: str, closed: list[str]) -> None:
    """c16: parked, woken for nothing and parked again; what is in `finally` happens once, when the await is over."""
    async with Mesh.connect(url, namespace=namespace) as mesh:
        clerk = Clerk()
        async with clerk.serving(mesh):
            run = await mesh.start("careful", id="r")
            for turn in range(3):
                await eventually(lambda turn=turn: closed.count("r") == turn + 1, timeout=10)  # type: ignore[misc]
                assert (await run.head()).state == "parked"
                await untouched(mesh, records=1 + turn)
                assert clerk.deeds == {}
                if turn < 2:
                    await run.signal("something else", turn)
            await run.signal("go", "told")
            assert await run.result(10) == ALL
            assert clerk.deeds == ONCE
            assert await mesh.store.command("GET", mesh.keys.user("n")) == "1"


async def test_one_whose_agent_leaves_while_a_step_runs(url: str, namespace: str, closed: list[str]) -> None:
    """c16: the agent drains in the middle of an await; another one goes on, and what was in the middle is begun anew."""
    async with Mesh.connect(url, namespace=namespace) as mesh:
        first, second = Clerk("first"), Clerk("second")
        async with first.serving(mesh):
            run = await mesh.start("careful", id="r", holds=True)
            await asyncio.wait_for(first.going.wait(), 10)
            first.agent.stop()
            await eventually(lambda: "r" in closed, timeout=10)
            await untouched(mesh)
        assert first.deeds == {"held": 1}
        async with second.serving(mesh):
            await asyncio.wait_for(second.going.wait(), 10)
            await untouched(mesh)
            second.gate.set()
            await run.signal("go", "told")
            assert await run.result(10) == ALL
        assert (first.deeds, second.deeds) == ({"held": 1}, ONCE | {"held": 1})


@pytest.mark.parametrize("verb", ["pause", "terminate"])
async def test_one_that_an_operator_takes_the_run_from(url: str, namespace: str, closed: list[str], verb: str) -> None:
    """c16: it finds out at its next commit, and what it does in `finally` after that goes nowhere."""
    async with Mesh.connect(url, namespace=namespace) as mesh:
        clerk = Clerk()
        async with clerk.serving(mesh):
            run = await mesh.start("careful", id="r", holds=True)
            await asyncio.wait_for(clerk.going.wait(), 10)
            await getattr(run, verb)()
            clerk.gate.set()
            await eventually(lambda: "r" in closed, timeout=10)
            await untouched(mesh, records=1 if verb == "pause" else 2)
            assert clerk.deeds == {"held": 1}
            if verb == "pause":
                await run.resume()
                await run.signal("go", "told")
                assert await run.result(10) == ALL
                assert clerk.deeds == ONCE | {"held": 2}
