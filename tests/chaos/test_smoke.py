"""Whole chaos runs: a few thousand tasks, agents and their server killed, frozen and cut off; nothing lost, nothing done twice.

`--chaos-seed N` chooses the tasks and the faults. A run that fails prints its report and keeps its histories. The server
fsyncs always: with everysec, a disk that is slow to sync lets a killed server lose up to two seconds that it had
acknowledged, which is the disk's doing (the README says so) and would be blamed on the scripts here.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.faults import ZOMBIES
from tests.chaos.run import Setting, play
from tests.chaos.verdict import Outcome
from tests.servers import find_binary

pytestmark = pytest.mark.chaos


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given: int = request.config.getoption("--chaos-seed")
    return given


def run(seed: int, **setting: object) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    outcome = asyncio.run(play(Setting(folder=folder, seed=seed, **setting)))  # type: ignore[arg-type]
    print(outcome.text())  # noqa: T201 - shown when the test fails, or with -s
    if not outcome.violations:
        shutil.rmtree(folder)
    return outcome


@pytest.mark.timeout(180)
def test_nothing_is_lost_and_nothing_is_settled_twice(seed):
    outcome = run(seed, tasks=3000, faults=40, fsync="always")
    faults = outcome.played.faults
    assert (sum(faults.values()), faults["agent_kill"] >= 12, faults["server_kill"] >= 4) == (40, True, True)
    assert not outcome.violations, outcome.text()


@pytest.mark.timeout(180)
def test_an_agent_that_settles_what_it_no_longer_owns_is_caught(seed):
    """The same run with agents whose settlements are not fenced has to fail, or the runs above prove nothing."""
    for one in range(seed, seed + 3):
        outcome = run(one, tasks=600, faults=12, shares=ZOMBIES, mutant="unfenced")
        shutil.rmtree(outcome.played.folder, ignore_errors=True)
        if outcome.report.settled_twice:
            return
    pytest.fail("three runs without a fence, and nothing was settled twice")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("flavour", "fsync"), [("valkey", "everysec"), ("redis", "everysec"), ("redis", "always")])
def test_on_other_servers(seed, flavour, fsync):
    if find_binary(flavour) is None:
        pytest.skip(f"no {flavour} server on this machine")
    outcome = run(seed, tasks=3000, faults=40, flavour=flavour, fsync=fsync)
    assert not outcome.violations, outcome.text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_long_run(seed):
    outcome = run(seed, tasks=20_000, faults=250, fsync="always")
    assert not outcome.violations, outcome.text()
