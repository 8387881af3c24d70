"""Forks, over every shape of the corpus and every step of its journal: what was done before is kept, the rest runs anew.

No server: `tests.runs.world` answers, a day after the run that is forked.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import pytest

from streammesh.errors import StepNotFound
from streammesh.forks import taken_over
from streammesh.workflow import Run
from tests.runs.shapes import SHAPES, Shape
from tests.runs.world import World, commands, execute, replayed

EACH = pytest.mark.parametrize("name", SHAPES)


def ended(name: str, seed: int) -> World:
    world = World(SHAPES[name], seed)
    world.run()
    return world


def paths(journal: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(record["path"] for record in commands(journal)))


@EACH
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("crash", [0.0, 0.8])
def test_a_fork_from_any_step_ends_and_its_journal_replays(name: str, seed: int, crash: float) -> None:
    shape = SHAPES[name]
    journal = ended(name, seed).journal
    for path in paths(journal):
        fork = World(shape, seed, crash=0.0 if name in ("local", "once") else crash).forked(journal, path)
        taken = len(fork.journal)
        state, value = fork.run()
        assert state == ("cancelled" if name == "cancelled" else "succeeded"), (path, value)
        for length in range(taken, len(fork.journal)):
            replayed(shape.function, fork.journal[:length], "f1")
        records, starts, ending = replayed(shape.function, fork.journal, "f1")
        assert (records, starts) == ([], [])
        assert ending is not None
        assert (json.loads(ending[1]) if state == "succeeded" else ending[1]) == value
        if not fork.generations:
            assert sum(record["what"] == "reissued" for record in fork.journal) == 1
            done = [record["of"] for record in fork.journal if record["what"] in ("done", "failed", "fired")]
            assert len(done) == len(set(done)), "a command was answered twice"
        assert not any(id.startswith("r1") for id in fork.ids), "ids are those of the new run"


@EACH
def test_what_was_done_before_keeps_its_results_and_is_not_asked_for_again(name: str) -> None:
    journal = ended(name, 1).journal
    for path in paths(journal):
        places, after = taken_over(journal, path)
        kept = [journal[place] for place in places]
        before = [record for record in commands(journal) if record["after"] < after]
        failed = {record["path"] for record in before if "error" in record}
        assert {record["path"] for record in before} - failed <= set(paths(kept))
        assert path not in paths(kept)
        answers = {record["of"]: record for record in journal if record["what"] == "done"}
        fork = World(SHAPES[name], 1).forked(journal, path)
        fork.run()
        for one in paths(kept):
            if one in answers and not fork.generations:
                assert answers[one] in fork.journal
                assert f"f1:{one}" not in fork.ids


async def chain(run: Run) -> Any:
    one = await run.call("echo", v=run.random().randrange(10**9))
    side = await run.child("kid", wait=False, id="side", close="abandon", n=1)
    kid = await run.child("kid", n=1)
    two, three, _ = await asyncio.gather(run.call("echo", v=2), run.call("echo", v=3), run.sleep(60))
    return [one, side, kid, two, three, run.now().isoformat()]


def test_what_was_open_is_set_in_motion_again_under_the_new_id() -> None:
    world = World(Shape("chain", chain), ordered=True)
    world.run()
    journal = world.journal
    # As it was when the second echo was asked for, and nothing had been answered since.
    cut = next(place for place, record in enumerate(journal) if record.get("path") == "2:timer.0") + 1
    fork = World(Shape("chain", chain), ordered=True).forked(journal[:cut], "1:echo.0")
    execution = execute(chain, fork.journal, "f1")
    assert execution.records[0] == {"what": "reissued", "paths": ["0:echo.0"]}
    tasks = [effect.args[2] for effect in execution.effects if effect.verb == "task"]
    assert tasks == ["f1:0:echo.0", "f1:1:echo.0"]
    # Lost before it was committed, it is asked for again; committed, it is not.
    effects, records = execution.effects, execution.records
    assert execute(chain, fork.journal, "f1").effects == effects
    after = execute(chain, fork.journal + records, "f1")
    assert (after.records, after.effects) == ([], [])
    state, value = fork.run()
    assert state == "succeeded"
    # The detached child and the other one had begun and ended under their old names, and are not begun again.
    first = next(record["result"] for record in journal if record["what"] == "done" and record["of"] == "echo.0")
    assert value[:3] == [first, "r1:side", "r1:kid.1"]
    assert [id for id in fork.ids if "kid" in id or "side" in id] == []


def test_time_goes_on_from_when_the_fork_was_made() -> None:
    async def patient(run: Run) -> Any:
        async with asyncio.timeout(3_600):
            await run.call("echo", v=1)
            try:
                async with asyncio.timeout(5):
                    await run.call("refuse")
            except Exception as error:
                return type(error).__name__

    world = World(Shape("patient", patient), ordered=True)
    world.run()
    fork = World(Shape("patient", patient), ordered=True).forked(world.journal, "refuse.0")
    execution = execute(patient, fork.journal, "f1")
    now = execution.loop.now
    assert abs(now - fork.now) < 0.01
    due = {effect.path: effect.args[0] / 1000 - now for effect in execution.effects if effect.verb == "timer"}
    # A day has gone by: of the hour most is left, and the five seconds begin now.
    assert 3_590 < due["timer.0"] <= 3_600.1
    assert 4.9 < due["timer.1"] < 5.1
    execution.close()
    assert fork.run() == ("succeeded", "StepFailed")
    assert datetime.fromisoformat(fork.journal[-1]["at"]).timestamp() >= now


def test_a_fork_of_a_fork_keeps_both_times_and_the_chance_of_the_first() -> None:
    world = World(SHAPES["chance"], 3)
    world.run()
    fork = World(SHAPES["chance"], 3).forked(world.journal, "echo.0")
    first = fork.run()
    assert first == (world.end or ("", None))
    again = World(SHAPES["chance"], 3).forked(fork.journal, "echo.0")
    assert again.journal[0]["seed"] == "r1"
    assert [after for after, _ in again.journal[0]["clock"]] == [0, 0]
    assert again.run() == first


def test_an_unknown_path_lists_those_that_there_are() -> None:
    with pytest.raises(StepNotFound, match=r"'echo\.9'; the run has: echo\.0, echo\.1, echo\.2, echo\.3"):
        taken_over(ended("sequence", 0).journal, "echo.9")
