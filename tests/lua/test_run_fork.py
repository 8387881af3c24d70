"""run_fork and run_skip: what they write, what they refuse, and that a second call changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lua.run_shard import Runs, child, task, timer
from tests.lua.shard import Shard

OPENING = '{"what":"start","workflow":"w","version":1,"input":{},"at":"2026-01-01T00:00:00.000Z","clock":[[0,"'


@pytest.fixture
def runs(shard: Shard) -> Runs:
    return Runs(shard)


def fork(runs: Runs, id: str = "f", of: str = "r", path: str = "x.0", generation: str = "", version: int = 1) -> str:
    records = ['{"what":"signal","name":"go","payload":1}']
    return str(runs.shard.run("run_fork", id, "w", version, generation, of, path, OPENING, len(records), *records))


def skip(runs: Runs, path: str = "x.0", result: Any = 7, token: str = "t1") -> str:
    return str(runs.shard.run("run_skip", "r", path, json.dumps(result), "ada", token))


def test_a_fork_is_a_queued_run_with_the_records_and_the_time_in_the_first(runs: Runs) -> None:
    assert fork(runs, generation="2") == "ok"
    head = runs.head("f")
    assert (head["state"], head["forked_of"], head["forked_from"], head["generation"]) == ("queued", "r", "x.0", "2")
    first, second = runs.journal("f")
    assert first["clock"] == [[0, head["started_at"]]]
    assert second["what"] == "signal"
    assert len(runs.wakes("f")) == 1
    assert runs.take().id == "f"


def test_the_same_fork_again_changes_nothing_and_another_one_is_refused(runs: Runs) -> None:
    assert fork(runs) == "ok"
    before = runs.shard.dump()
    assert fork(runs) == "attached queued"
    assert fork(runs, path="x.1") == "conflict queued"
    runs.start("other")
    after = runs.shard.dump()
    assert fork(runs, "other") == "conflict queued"
    assert before != after == runs.shard.dump()


def test_a_fork_goes_to_the_stream_of_its_version(runs: Runs) -> None:
    assert fork(runs, version=3) == "ok"
    assert len(runs.wakes("f", stream="runs:w@3")) == 1


@pytest.mark.parametrize(
    ("effect", "path", "record"),
    [(task(), "x.0", "done"), (timer(9_999_999_999_999), "timer.0", "fired"), (child(), "k.0", "done")],
)
def test_skipping_answers_takes_back_and_wakes(runs: Runs, effect: tuple[Any, ...], path: str, record: str) -> None:
    runs.parked("r", effect)
    assert skip(runs, path) == "ok"
    last = runs.journal()[-1]
    assert (last["what"], last["of"], last["by"]) == (record, path, "ada")
    assert last.get("result") == (None if record == "fired" else 7)
    assert runs.open() == {}
    assert runs.shard.due() == {}
    assert (runs.state(), len(runs.wakes())) == ("queued", 1)
    if record == "done":
        assert runs.shard.state("r:x.0") == "cancelled" or runs.told("r:k.0") == [("cancel", "its parent")]
    # The reply was lost: once more changes nothing. Somebody else finds that it is not open.
    before = runs.shard.dump()
    assert skip(runs, path) == "ok"
    assert skip(runs, path, token="t2") == "not_open"
    assert runs.shard.dump() == before


def test_a_stuck_run_stays_stuck_and_an_ended_one_is_closed(runs: Runs) -> None:
    assert skip(runs) == "missing"
    one = runs.running()
    runs.do(one, effects=[task()], number="1")
    runs.do(one, "stuck", "why", number="2")
    assert skip(runs, "y.0") == "not_open"
    assert skip(runs) == "ok"
    assert (runs.state(), runs.wakes()) == ("stuck", [])
    runs.act("terminate")
    assert skip(runs, "z.0", token="t3") == "closed cancelled"
