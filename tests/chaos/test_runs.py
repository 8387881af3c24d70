"""Chaos with runs: each ends once with the right result, whatever is killed, frozen or cut off.

`--chaos-seed N` chooses the runs and the faults; `--slow` runs it in full. What fails keeps its histories.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.runs import Setting, play

pytestmark = pytest.mark.chaos


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given: int = request.config.getoption("--chaos-seed")
    return given


def _passes(seed: int, **setting: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-runs-{seed}-"))
    judgement = asyncio.run(play(Setting(folder, seed, **setting)))  # type: ignore[arg-type]
    print(judgement)  # noqa: T201 - shown when the test fails, or with -s
    assert not judgement.violations, f"{judgement}\nhistories: {folder}"
    shutil.rmtree(folder)


@pytest.mark.timeout(120)
def test_runs_end_once_with_the_right_result(seed):
    _passes(seed, runs=100, faults=12)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("more", range(3))
def test_many_runs_under_many_faults(seed, more):
    _passes(seed + more, runs=500, faults=40)
