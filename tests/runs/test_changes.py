"""Changed code against recorded journals: it is told what does not fit, and where; it never guesses. Patches let both go on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from streammesh.errors import NonDeterminism
from streammesh.workflow import Run
from tests.runs.shapes import Function, Shape
from tests.runs.world import World, execute, replayed


async def first_version(run: Run) -> Any:
    one = await run.call("echo", v=1)
    two = await run.call("double", v=2)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def renamed(run: Run) -> Any:
    one = await run.call("echo", v=1)
    two = await run.call("triple", v=2)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def removed(run: Run) -> Any:
    one = await run.call("echo", v=1)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, 0, three, await run.step(len, "four")]


async def removed_at_the_end(run: Run) -> Any:
    one = await run.call("echo", v=1)
    two = await run.call("double", v=2)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, 4]


async def added(run: Run) -> Any:
    one = await run.call("echo", v=1)
    await run.call("new", v=1)
    two = await run.call("double", v=2)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def added_at_the_end(run: Run) -> Any:
    return [await first_version(run), await run.call("new")]


async def added_local(run: Run) -> Any:
    one = await run.call("echo", v=1)
    await run.step(str, 1)
    two = await run.call("double", v=2)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def reordered(run: Run) -> Any:
    two = await run.call("double", v=2)
    one = await run.call("echo", v=1)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def at_once(run: Run) -> Any:
    one, two = await asyncio.gather(run.call("echo", v=1), run.call("double", v=2))
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def earlier(run: Run) -> Any:
    async with asyncio.timeout(3):
        one = await run.call("echo", v=1)
    two = await run.call("double", v=2)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def other_kind(run: Run) -> Any:
    one = await run.child("echo", v=1)
    two = await run.call("double", v=2)
    await run.sleep(3)
    three = await run.child("kid", n=3)
    return [one, two, three, await run.step(len, "four")]


async def other_child(run: Run) -> Any:
    one = await run.call("echo", v=1)
    two = await run.call("double", v=2)
    await run.sleep(3)
    three = await run.child("kid", id="another", n=3)
    return [one, two, three, await run.step(len, "four")]


async def catching(run: Run) -> Any:
    """However hard the code tries, it cannot keep the error to itself."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run.call("new", v=1))
    except BaseException:
        return "all is well"


async def swallowing(run: Run) -> Any:
    try:
        await run.call("echo", v=1)
        await run.call("new", v=1)
    except Exception:
        pass
    return await asyncio.gather(run.call("newer"), return_exceptions=True)


CHANGED = [
    renamed, removed, removed_at_the_end, added, added_at_the_end, added_local, reordered, at_once, earlier, other_kind,
    other_child, catching, swallowing,
]  # fmt: skip


@pytest.mark.parametrize("changed", CHANGED, ids=lambda function: function.__name__)
def test_changed_code_is_told_and_never_guesses(changed: Function) -> None:
    world = World(Shape("first_version", first_version))
    world.run()
    with pytest.raises(NonDeterminism) as told:
        execute(changed, world.journal)
    text = str(told.value)
    assert "the journal" in text
    assert "the code" in text
    assert f"{Path(__file__).name}:" in text, text
    seen = set()
    for length in range(1, len(world.journal)):
        other = World(Shape("first_version", changed)).continued(world.journal[:length])
        try:
            other.run()
        except NonDeterminism:
            seen.add("told")
        else:
            # The part of the code that differs had not been come to: the journal of the run is that of the new code.
            records, starts, _ = replayed(changed, other.journal)
            assert (records, starts) == ([], [])
            seen.add("went on")
    assert "told" in seen or changed in (added_at_the_end, removed_at_the_end)


def test_the_line_that_is_named_is_the_line_that_gives_the_command() -> None:
    world = World(Shape("first_version", first_version))
    world.run()
    with pytest.raises(NonDeterminism) as told:
        execute(renamed, world.journal)
    line = renamed.__code__.co_firstlineno + 2
    assert f"{Path(__file__).name}:{line}" in str(told.value)


async def unpatched(run: Run) -> Any:
    said = []
    for n in range(3):
        said.append(await run.call("echo", v=n))
    return said


async def with_patch(run: Run) -> Any:
    said = []
    for n in range(3):
        said.append(await run.call("echo", v=n))
        if run.patched("more"):
            said.append(await run.call("echo", v="more"))
    return said


async def patched_first(run: Run) -> Any:
    if run.patched("first"):
        await run.call("new")
    return await unpatched(run)


@pytest.mark.parametrize("changed", [with_patch, patched_first], ids=lambda function: function.__name__)
@pytest.mark.parametrize("crash", [0.0, 1.0])
def test_a_patch_lets_old_runs_and_new_ones_go_on(changed: Function, crash: float) -> None:
    world = World(Shape("unpatched", unpatched))
    old = world.run()
    execute(changed, world.journal)
    for length in range(1, len(world.journal)):
        other = World(Shape("unpatched", changed), crash=crash).continued(world.journal[:length])
        state, value = other.run()
        records, starts, ending = replayed(changed, other.journal)
        assert (records, starts) == ([], [])
        assert ending is not None
        assert json.loads(ending[1]) == value
        if any(record["what"] == "patched" for record in other.journal):
            again = World(Shape("unpatched", changed)).continued(other.journal[:-1])
            assert again.run() == (state, value)
        else:
            assert (state, value) == old
