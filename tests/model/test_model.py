"""The protocol against every interleaving of few agents, one or two tasks and a little bad luck; and the mutants.

What this shows: within these bounds no order of steps, no lost request or reply, no request executed late, no crash, no
living agent taken for dead and no wrong clock loses a task, settles it twice, or leaves anything behind. What it does
not show: that the Lua scripts do what the model says. The state machine on a real server and the chaos run are for that.
"""

import pytest

from tests.model.explore import HARM, UNTIDY, circle, explore
from tests.model.moves import Moves
from tests.model.protocol import Protocol
from tests.model.state import Faults, first_state
from tests.model.verdicts import MUTANTS, Deadly, Mutant

MOST_STATES = 1_000_000

ONE_TASK = [
    Faults(),
    Faults(crashes=2, losses=1, stalls=1),
    Faults(crashes=1, losses=1, early=1),
    Faults(crashes=1, stalls=2, releases=1, cancels=1),
    Faults(crashes=1, losses=1, releases=1, cancels=1),
    Faults(crashes=1, stalls=1, early=1, releases=1),
    Faults(crashes=1, stalls=1, releases=1, regroups=1),
]
TWO_TASKS = [Faults(crashes=1), Faults(stalls=1), Faults(early=1), Faults(cancels=1, releases=1)]
LONG = [
    (1, Faults(crashes=2, losses=2)),
    (1, Faults(crashes=1, losses=1, stalls=1, regroups=1)),
    (1, Faults(crashes=2, early=1, releases=1, regroups=1)),
    (1, Faults(crashes=1, losses=1, stalls=1, releases=1, cancels=1)),
    (1, Faults(crashes=1, losses=1, stalls=1, early=1)),
    (1, Faults(losses=1, stalls=1, early=1, releases=1, cancels=1)),
    (2, Faults(crashes=1, losses=1)),
]


def luck(faults: object) -> str:
    if not isinstance(faults, Faults):
        return str(faults)
    return " ".join(f"{count}{name}" for name, count in zip(Faults._fields, faults, strict=True) if count) or "none"


def holds(tasks: int, faults: Faults, deaths: int = 2) -> None:
    report = explore(Moves(Protocol(deaths=deaths)), first_state(tasks, faults))
    assert not report.flaws, str(report)
    assert report.complete
    assert report.states <= MOST_STATES


@pytest.mark.parametrize("faults", ONE_TASK, ids=luck)
def test_one_task_is_settled_once_whatever_happens(faults: Faults) -> None:
    holds(1, faults)


@pytest.mark.parametrize("faults", TWO_TASKS, ids=luck)
def test_two_tasks_do_not_get_in_each_others_way(faults: Faults) -> None:
    holds(2, faults)


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "faults"), LONG, ids=luck)
def test_more_bad_luck(tasks: int, faults: Faults) -> None:
    holds(tasks, faults)


def test_a_deadly_task_ends_as_a_dead_letter() -> None:
    report = explore(Deadly(Protocol(deaths=3)), first_state(1, Faults(crashes=5, losses=1)), rounds=5)
    assert not report.flaws, str(report)
    assert report.complete


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.mistake.__name__)
def test_a_mistake_shows(mutant: Mutant) -> None:
    report = explore(mutant.moves(), first_state(1, mutant.faults), rounds=5)
    assert report.verdict == mutant.verdict, str(report)
    # to be called safe, a mutant has to be searched to the end
    assert report.complete or report.verdict & HARM.keys()


def test_every_flaw_is_shown_by_some_mutant() -> None:
    shown = frozenset().union(*(mutant.verdict for mutant in MUTANTS))
    assert shown >= HARM.keys()
    assert shown | {"REMAINS"} >= UNTIDY.keys()  # what remains at rest is always the trace of a greater harm


def test_a_trace_reads_as_a_story() -> None:
    drops = next(mutant for mutant in MUTANTS if mutant.mistake.__name__ == "DropsWhatOthersRun")
    report = explore(drops.moves(), first_state(1, drops.faults))
    story = "\n".join(report.flaws["LOST"])
    assert story.splitlines()[0] == " 1 client enqueue 0"
    for step in ("A reads 1", "B claims 1", "A claims what it read 1", "B SIGKILL"):
        assert step in story


def test_a_circle_is_found() -> None:
    assert circle([[1], [2], [1, 3], []]) == 1
    assert circle([[1, 2], [2], []]) is None
