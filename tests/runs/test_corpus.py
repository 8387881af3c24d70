"""Journals that releases have recorded, against the shapes and the engine of now, on every Python that is here.

When one of these fails, runs that are under way somewhere would be stuck after an upgrade: mend the engine, not the journal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streammesh import Agent
from streammesh.errors import InvalidPayload, NonDeterminism
from streammesh.replays import journal_of, read, replay
from streammesh.testing import assert_replays
from streammesh.workflow import Run, Workflow
from tests.runs.record import CORPUS, record
from tests.runs.shapes import SHAPES
from tests.runs.world import World

ROOT = Path(__file__).parents[2]
JOURNALS = sorted(CORPUS.glob("*/*.jsonl"))
#: What a replay needs, and nothing more.
IMPORTS = "import orjson"
PYTHONS = [f"3.{minor}" for minor in range(11, 15)]


def shape_of(journal: Path) -> str:
    return journal.stem.partition("-")[0]


def test_there_is_a_corpus_of_every_shape() -> None:
    assert {shape_of(journal) for journal in JOURNALS} >= set(SHAPES)


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_journal_still_replays(journal: Path) -> None:
    assert_replays(SHAPES[shape_of(journal)].function, journal, id="r1")


def test_what_would_be_recorded_now_replays_as_well(tmp_path: Path) -> None:
    assert record(tmp_path / "now") >= 2 * len(SHAPES)
    for journal in sorted((tmp_path / "now").iterdir()):
        assert_replays(SHAPES[shape_of(journal)].function, journal, id="r1")


CHECK = f"""
{IMPORTS}
from pathlib import Path
from streammesh.replays import read, replay_every_prefix
from streammesh.workflow import Workflow
from tests.runs.shapes import SHAPES
count = 0
for journal in sorted(Path("tests/runs/journals").glob("*/*.jsonl")):
    name = journal.stem.partition("-")[0]
    found = replay_every_prefix(Workflow.make(name, 1, SHAPES[name].function), read(journal), id="r1")
    assert not found.remark, (journal, found)
    count += 1
print(count)
"""


def python(version: str) -> str | None:
    """An interpreter of that version which has what a replay imports: on the path, or one of pyenv's."""
    found = [shutil.which(f"python{version}") or ""]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for path in sorted(versions.glob(f"{version}.*/bin/python"))]
    for path in filter(None, found):
        try:
            if subprocess.run([path, "-c", IMPORTS], capture_output=True, check=False, timeout=60).returncode == 0:
                return path
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


@pytest.mark.parametrize("version", [one for one in PYTHONS if not sys.version.startswith(f"{one}.")])
def test_the_corpus_replays_on_another_python(version: str) -> None:
    other = python(version)
    if other is None:
        pytest.skip(f"no Python {version} with orjson on this machine")
    done = subprocess.run(
        [other, "-c", CHECK], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(JOURNALS)


# -- the helper itself


async def changed(run: Run) -> Any:
    total = 0
    for n in range(4):
        total += await run.call("echo" if n < 2 else "other", v=n)
    return total


async def other_end(run: Run) -> Any:
    return await SHAPES["sequence"].function(run) + 1


def journal_of_sequence() -> list[dict[str, Any]]:
    world = World(SHAPES["sequence"], 1)
    _, world.journal[-1]["result"] = world.run()
    return world.journal


def test_changed_code_fails_with_what_was_expected_and_where(tmp_path: Path) -> None:
    journal = journal_of_sequence()
    with pytest.raises(pytest.fail.Exception, match=r"'echo\.2'|'other'") as told:
        assert_replays(changed, journal)
    assert f"{Path(__file__).name}:" in str(told.value)
    with pytest.raises(pytest.fail.Exception, match="the journal ends with 6, the code with 7"):
        assert_replays(other_end, journal)
    file = tmp_path / "sequence.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in journal))
    assert_replays(SHAPES["sequence"].function, file)
    with pytest.raises(pytest.fail.Exception, match=r"sequence\.jsonl: "):
        assert_replays(changed, file)
    with pytest.raises(NonDeterminism, match="other"):
        replay(Workflow.make("sequence", 1, changed), journal)


def test_an_agent_is_asked_for_its_workflow() -> None:
    agent = Agent("tester")
    journal = journal_of_sequence()
    with pytest.raises(pytest.fail.Exception, match="has no workflow sequence; it has none"):
        assert_replays(agent, journal)
    agent.workflow("sequence")(SHAPES["sequence"].function)
    assert_replays(agent, journal)


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", '{"what":"call"}', "[1]", '{"start":1}'):
        with pytest.raises(InvalidPayload, match="this is no journal"):
            journal_of(text)
    with pytest.raises(InvalidPayload, match="line 2 of the journal"):
        journal_of('{"what":"start"}\nnonsense')
    assert read(JOURNALS[0]) == journal_of(json.dumps(read(JOURNALS[0])))


def test_other_agents_are_not_asked_in_a_replay() -> None:
    async def asking(run: Run, how: str) -> Any:
        return await (run.vote("which?", ["a", "b"]) if how == "vote" else run.auction("work"))

    for how, step in (("vote", "electorate.0"), ("auction", "work.bidders.0")):
        start = {"what": "start", "workflow": "asking", "version": 1, "input": {"how": how}}
        found = replay(Workflow.make("asking", 1, asking), [start])
        assert (found.ended, found.asks) == ("", (step,))
