"""What a workflow may not do, and what it may not do to the agent that executes it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from streammesh.workflow import Run
from tests.runs.shapes import SHAPES, Function, Shape
from tests.runs.world import World, execute


async def connects(run: Run) -> Any:
    await asyncio.open_connection("127.0.0.1", 9)


async def serves(run: Run) -> Any:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def goes_to_a_thread(run: Run) -> Any:
    await asyncio.to_thread(len, "x")


async def uses_an_executor(run: Run) -> Any:
    await asyncio.get_running_loop().run_in_executor(None, len, "x")


async def starts_a_process(run: Run) -> Any:
    await asyncio.create_subprocess_exec("true")


async def starts_a_shell(run: Run) -> Any:
    await asyncio.create_subprocess_shell("true")


async def blocks_on_a_process(run: Run) -> Any:
    subprocess.run(["true"], check=True)


async def opens_a_socket(run: Run) -> Any:
    socket.create_connection(("127.0.0.1", 9))


async def starts_a_thread(run: Run) -> Any:
    threading.Thread(target=len, args=("x",)).start()


async def watches_a_file(run: Run) -> Any:
    asyncio.get_running_loop().add_reader(0, lambda: None)


OUTSIDE = [
    connects, serves, goes_to_a_thread, uses_an_executor, starts_a_process, starts_a_shell, blocks_on_a_process, opens_a_socket,
    watches_a_file, starts_a_thread,
]  # fmt: skip


if sys.version_info < (3, 12):
    OUTSIDE.remove(starts_a_thread)  # only from then on Python says when a bare thread is started


@pytest.mark.parametrize("function", OUTSIDE, ids=lambda function: function.__name__)
def test_the_world_outside_is_refused_and_a_step_is_offered(function: Function) -> None:
    state, text = World(Shape("outside", function)).run()
    assert state == "failed"
    assert "run.step(" in text, text


async def exits(run: Run) -> Any:
    await run.call("echo", v=1)
    sys.exit(3)


async def wants_more(run: Run, path: str) -> Any:
    return path


def test_a_workflow_cannot_take_its_agent_along() -> None:
    assert World(Shape("exits", exits)).run()[0] == "failed"


def test_input_that_does_not_fit_ends_the_run_rather_than_its_executor() -> None:
    state, text = World(Shape("wants_more", wants_more)).run()
    assert state == "failed"
    assert "path" in text


def test_closing_starts_nothing_on_the_loop_outside() -> None:
    """What is parked in the middle of a saga or a group leaves no task behind."""

    async def outside() -> set[str]:
        before = asyncio.all_tasks()
        for shape in SHAPES.values():
            world = World(shape)
            world.run()
            for length in range(1, len(world.journal)):
                execute(shape.function, world.journal[:length]).close()
        await asyncio.sleep(0)
        return {repr(task) for task in asyncio.all_tasks() - before}

    assert asyncio.run(outside()) == set()


def test_a_saga_that_is_closed_anywhere_undoes_nothing_more() -> None:
    """What is parked or lost has not ended. (A `finally` does run, but what it asks for goes nowhere.)"""
    world = World(SHAPES["saga"], 1)
    world.run()
    for length in range(1, len(world.journal)):
        execution = execute(SHAPES["saga"].function, world.journal[:length])
        asked = (list(execution.records), list(execution.effects))
        execution.close()
        assert (execution.records, execution.effects) == asked, world.journal[:length]
