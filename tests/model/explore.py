"""Breadth-first search over all states, and what must be true in each of them.

The first trace to a flaw is a shortest one, and it reads as a story. Flaws are of two weights. **Harm** is what no user
may ever see: a task lost, an outcome that changes, an agent told something untrue. **Untidy** is what the other guards
still make good: an entry that outlives its task for a moment, a handler run again for no reason, a chase without end.
"""

import gc
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model.moves import PROGRESS, Move, Moves
from tests.model.state import ABSENT, DEAD, DELAYED, FINAL, QUEUED, RUNNING, State, forget_idle

HARM = {
    "LOST": "the mesh is at rest, and a task is not settled",
    "CHANGED": "a settled record was changed",
    "FALSE OK": "an execution was told `ok`, but another outcome is recorded: settled twice",
    "FALSE STALE": "an execution was told `stale`, but its outcome is the recorded one",
    "BACKWARDS": "the attempt of a task, the fence, went down",
    "UNDESERVED": "a task was given up as poison with fewer deaths than the limit",
}
UNTIDY = {
    "NO ENTRY": "a queued task without its entry, a running one without an entry pending with its owner, "
    "or a delayed one that is not due",
    "GHOST": "an entry of a settled task, or one that is not its task's current entry",
    "RERUN": "more attempts than faults, retries and releases explain",
    "REMAINS": "at rest with something left over: an entry, a due time",
    "ENDLESS": "without any fault the mesh need not come to rest",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What the search found: size, and for each kind of flaw the shortest way to it."""

    states: int
    moves: int
    seconds: float
    complete: bool
    flaws: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def verdict(self) -> frozenset[str]:
        """The harm done, or else what is untidy, or nothing."""
        harm = self.flaws.keys() & HARM.keys()
        return frozenset(harm or self.flaws)

    def __str__(self) -> str:
        head = f"{self.states} states, {self.moves} moves, {self.seconds:.2f} s"
        return "\n".join([head, *(f"{kind}:\n  " + "\n  ".join(trace) for kind, trace in self.flaws.items())])


def explore(moves: Moves, first: State, *, rounds: int = 8) -> Report:
    """Search everything that can be reached from `first`; stop at the first harm.

    A task with more than `rounds` attempts or entries is not followed: a correct protocol never gets there, and a mutant
    that chases its own tail would have no end.
    """
    started = time.perf_counter()
    gc.disable()  # states hold no circles, and looking for some in a million tuples takes longer than the search
    try:
        return search(moves, first, rounds, started)
    finally:
        gc.enable()


def search(moves: Moves, first: State, rounds: int, started: float) -> Report:
    number = {first: 0}
    came_from: list[tuple[int, Move | None]] = [(0, None)]
    progress: list[list[int]] = []  # state number -> the numbers progress leads to
    flaws: dict[str, tuple[str, ...]] = {}
    queue = deque([first])
    total = 0

    def found(kinds: Iterator[str], at: int, last: Move | None = None) -> None:
        for kind in kinds:
            if kind not in flaws:
                flaws[kind] = tuple(story(came_from, at, last))

    while queue and not flaws.keys() & HARM.keys():
        state = queue.popleft()
        here = len(progress)
        leads_to: list[int] = []
        progress.append(leads_to)
        if state.last_entry > rounds * len(state.records) or any(record.attempt > rounds for record in state.records):
            found(iter(["ENDLESS"]), here)
            continue
        at_rest = True
        for move in moves.all(state):
            total += 1
            after = forget_idle(move.state)
            if after.records is not state.records:
                found(changed(state, move), here, move)
            if move.wrong:
                found(iter([move.wrong]), here, move)
            known = number.get(after)
            if known is None:
                known = number[after] = len(came_from)
                came_from.append((here, move))
                queue.append(after)
                found(standing(after, first), known)
            if move.kind is PROGRESS and known != here:
                at_rest = False
                leads_to.append(known)
        if at_rest:
            found(resting(state), here)
    back = None if queue else circle(progress)
    if back is not None:
        found(iter(["ENDLESS"]), back)
    return Report(len(number), total, time.perf_counter() - started, not queue, flaws)


def changed(before: State, move: Move) -> Iterator[str]:
    """What no single step may do to a record."""
    for old, new in zip(before.records, move.state.records, strict=True):
        if old is not new:
            if old.state in FINAL and old != new:
                yield "CHANGED"
            if new.attempt < old.attempt:
                yield "BACKWARDS"


def standing(state: State, first: State) -> Iterator[str]:
    """What must be true in every state."""
    spent = sum(first.faults) - sum(state.faults)
    deaths = lives_lost(first) - lives_lost(state)
    regrouped = first.faults.regroups > state.faults.regroups  # then an entry may be with somebody else for a while
    holders = {entry.id: entry.holder for entry in state.entries}
    for task, record in enumerate(state.records):
        if record.state == QUEUED and record.entry not in holders:
            yield "NO ENTRY"
        if record.state == RUNNING and holders.get(record.entry) != record.agent and not regrouped:
            yield "NO ENTRY"
        if record.state == RUNNING and record.entry not in holders:
            yield "NO ENTRY"
        if record.state == DELAYED and task not in state.due:
            yield "NO ENTRY"
        if record.attempt - 1 > spent + record.failures:
            yield "RERUN"
        if record.state == DEAD and record.result == ("poison", 0) and deaths < record.deaths:
            yield "UNDESERVED"
    for entry in state.entries:
        if state.records[entry.task].entry != entry.id:
            yield "GHOST"


def lives_lost(state: State) -> int:
    """A claim that reaches Redis when its sender is dead already counts as a death of the task, too."""
    return state.faults.crashes + state.faults.stalls + state.faults.losses


def resting(state: State) -> Iterator[str]:
    """What must be true when a healthy mesh has nothing left to do."""
    if any(record.state not in FINAL and record.state != ABSENT for record in state.records) or state.unsure:
        yield "LOST"
    if state.entries or state.due or any(process.holds or process.read for process in state.processes):
        yield "REMAINS"


def circle(progress: list[list[int]]) -> int | None:
    """A state to which progress alone can come back, or None: depth first, looking for a way back to where we are."""
    new, on_the_way, through = 0, 1, 2
    seen = bytearray(len(progress))
    for first in range(len(progress)):
        way = [(first, iter(progress[first]))] if seen[first] == new else []
        seen[first] = seen[first] or on_the_way
        while way:
            at, onward = way[-1]
            target = next((target for target in onward if seen[target] != through), None)
            if target is None:
                seen[at] = through
                way.pop()
            elif seen[target] == on_the_way:
                return target
            else:
                seen[target] = on_the_way
                way.append((target, iter(progress[target])))
    return None


def story(came_from: list[tuple[int, Move | None]], at: int, last: Move | None) -> list[str]:
    """The moves from the first state to state number `at`, and `last` behind them."""
    steps = [last] if last else []
    while at:
        at, move = came_from[at]
        if move:
            steps.append(move)
    steps.reverse()
    return [f"{number:2} {' '.join(map(str, step.what))}" for number, step in enumerate(steps, 1)]
