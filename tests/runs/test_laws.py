"""Laws of replay, over every shape of the corpus: the same journal makes the same commands and the same result, always.

No server: `tests.runs.world` answers. What a seed decides is the order in which things happen.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streammesh.workflow import Run
from tests.runs.shapes import SHAPES, double
from tests.runs.world import World, commands, execute, notifications, replayed

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("name", SHAPES)
SEEDS = range(12)


# -- (a), (b): what ran once runs again in the same way, from every place


@EACH
@pytest.mark.parametrize("seed", SEEDS)
def test_replaying_every_prefix_gives_the_commands_that_were_recorded(name: str, seed: int) -> None:
    shape = SHAPES[name]
    world = World(shape, seed)
    end = world.run()
    for journal in [*world.generations, world.journal]:
        every = {record["path"]: record for record in commands(journal)}
        for length in range(1, len(journal) + 1):
            prefix = journal[:length]
            known = {record["path"] for record in commands(prefix)}
            due = {path for path, record in every.items() if record["after"] <= notifications(prefix)}
            records, starts, ending = replayed(shape.function, prefix)
            assert replayed(shape.function, prefix) == (records, starts, ending), "a second replay differs"
            asked = {record["path"] for record in records} | set(starts)
            # What was given in the turn that ended a generation never came into its journal.
            if name != "once" and (ending is None or ending[0] != "again"):
                assert known | asked == due | known, prefix
            for record in records:
                if record["what"] != "begin" and record["path"] in every:
                    assert record == every[record["path"]]
            if length == len(journal) and journal is world.journal:
                assert not records
                assert not starts
                assert ending is not None
                assert (ending[0], json.loads(ending[1]) if ending[0] == "succeeded" else ending[1]) == end


@EACH
@pytest.mark.parametrize("seed", range(4))
def test_going_on_from_any_prefix_ends_in_the_same_way(name: str, seed: int) -> None:
    """With a world that answers in one order, whoever goes on from whatever was recorded comes to the same journal."""
    shape = SHAPES[name]
    world = World(shape, seed, ordered=True)
    end = world.run()
    if world.generations or name == "once":
        return
    for length in range(1 + len(shape.first), len(world.journal)):
        other = World(shape, seed, ordered=True).continued(world.journal[:length])
        assert other.run() == end, world.journal[:length]
        shown = [[{k: v for k, v in record.items() if k != "at"} for record in one.journal] for one in (other, world)]
        assert {json.dumps(r) for r in shown[0]} == {json.dumps(r) for r in shown[1]}


# -- (c): any order gives some outcome, and its replay gives that one; with the executor lost anywhere


@EACH
@pytest.mark.parametrize("crash", [0.0, 0.3, 1.0])
def test_any_order_gives_an_outcome_that_its_replay_gives_again(name: str, crash: float) -> None:
    shape = SHAPES[name]
    for seed in range(25):
        world = World(shape, f"{seed}/{crash}", crash=min(crash, 0.9) if name in ("local", "once") else crash)
        state, value = world.run()
        if name != "once":
            assert state == ("cancelled" if name == "cancelled" else "succeeded")
        steps = [record["path"] for record in world.journal if record["what"] == "step"]
        assert len(steps) == len(set(steps)), "a step was recorded twice"
        records, starts, ending = replayed(shape.function, world.journal)
        assert (records, starts) == ([], [])
        assert ending is not None
        assert ending[0] == state
        assert (json.loads(ending[1]) if state == "succeeded" else ending[1]) == value


@EACH
def test_a_lost_executor_changes_nothing(name: str) -> None:
    """In one order of answers, an executor lost at every turn comes to the result of one that never was lost."""
    if name == "once":
        return
    shape = SHAPES[name]
    crash = 0.5 if name == "local" else 1.0
    assert World(shape, 1, ordered=True).run() == World(shape, 1, ordered=True, crash=crash).run()


def test_paths_are_unique_in_a_run() -> None:
    for shape in SHAPES.values():
        for seed in SEEDS:
            world = World(shape, seed)
            world.run()
            for journal in [*world.generations, world.journal]:
                paths = [record["path"] for record in commands(journal) if record["what"] != "begin"]
                assert len(paths) == len(set(paths))


def test_a_race_has_the_winner_that_was_first_in_the_journal() -> None:
    winners = set()
    for seed in range(40):
        world = World(SHAPES["race"], seed)
        _, value = world.run()
        first = next(record for record in world.journal if record["what"] == "done")
        assert value[0] == [first["result"]]
        winners.add(first["result"])
    assert winners == {0, 1, 2}


def test_what_was_lost_in_the_middle_of_a_step_at_most_once_is_in_doubt() -> None:
    world = World(SHAPES["once"])
    world.run()
    begun = [record for record in world.journal if record["what"] in ("start", "begin")]
    execution = execute(SHAPES["once"].function, begun)
    assert execution.starts == []
    # Who goes on with the run says so in the journal, after whatever the one that began it has heard.
    [(path, begin)] = execution.doubts.items()
    execution.committed([{**begin, "what": "step", "error": f"StepInDoubt {path}", "doubt": True}])
    assert execution.done
    state, text = execution.ending()
    assert state == "failed"
    assert "StepInDoubt" in text
    assert "double" in text


async def impatient(run: Run) -> Any:
    try:
        async with asyncio.timeout(1):
            return await run.step(double, 1)
    except TimeoutError:
        return "late"


def test_a_step_that_was_given_up_is_not_begun_again() -> None:
    start = {"what": "start", "workflow": "impatient", "version": 1, "input": {}, "at": "2026-01-01T00:00:00.000Z"}
    timer = {"what": "timer", "path": "timer.0", "name": "timer", "due": 1767225601001, "after": 0}
    records, starts, ending = replayed(impatient, [start, timer, {"what": "fired", "of": "timer.0"}])
    assert (records, starts, ending) == ([], [], ("succeeded", b'"late"'))
    assert replayed(impatient, [start, timer])[1] == ["double.0"]


# -- (e): whatever process it is


def fingerprint() -> str:
    """Of all journals, for a few seeds."""
    told = []
    for name, shape in sorted(SHAPES.items()):
        for seed in range(3):
            world = World(shape, seed)
            told.append([name, world.run(), world.generations, world.journal])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def pythons() -> list[str]:
    found = [sys.executable]
    for minor in range(11, 15):
        path = shutil.which(f"python3.{minor}")
        if path and f"3.{minor}" not in sys.version[:4]:
            check = subprocess.run([path, "-c", "import orjson, redis, tenacity"], capture_output=True, check=False)
            found += [path] * (check.returncode == 0)
    return found


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_no_hash_and_no_address_decides_anything(python: str) -> None:
    seen = set()
    for seed in ("0", "1", "77"):
        # Memory that is laid out differently, besides: addresses order sets, too.
        code = f"ballast = [object() for _ in range({int(seed) * 999})]; from tests.runs.test_laws import fingerprint; print(fingerprint())"
        done = subprocess.run(
            [python, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        seen.add(done.stdout.strip())
    assert seen == {fingerprint()}
