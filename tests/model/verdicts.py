"""What the search must say about every mutant.

Three kinds of verdict: **harm** (lost, changed, settled twice, told something untrue), **untidy** (safe, since other
guards make it good, but something runs again, stays behind for a while, or never ends) and **nothing** (this guard is a
second lock on a door that has one; kept, since the first one may be wrong one day).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.moves import PROGRESS, Move, Moves, pay
from tests.model.mutants import (
    AckFirst,
    AttemptHandedBack,
    BlindRenew,
    CancelLeavesEntry,
    CancelledStarts,
    ClaimsFromTheLiving,
    ClaimsWithoutPending,
    DeathsNotCounted,
    DeletesConsumers,
    DropsStraysOfOthers,
    DropsWhatItCannotStart,
    DropsWhatOthersRun,
    EntryForEveryRequest,
    HandsBackStraysOfOthers,
    HandsBackWhatItRuns,
    KeepsStraysOfOthers,
    MarkFirst,
    NoAttemptCheck,
    NoDedupe,
    NoEntryCheck,
    NoFence,
    NoOwnerCheck,
    NoRepeat,
    NoStateCheck,
    OrphanWhoeverRunsIt,
    PoisonKeepsOwner,
    ReleaseWithoutFence,
    RepeatByState,
    ResultFirst,
    SettleWithoutAck,
    StraysFromAList,
    SweepsItself,
    TimerFirst,
)
from tests.model.protocol import Protocol
from tests.model.state import Faults, Process, State, without_process


class Deadly(Moves):
    """No mistake: a task that kills whoever runs it. It has to end as a dead letter, and soon."""

    def settle(self, state: State, process: Process) -> Iterator[Move]:
        if process.holds:
            yield Move(PROGRESS, (process.name, "dies of it"), pay(without_process(state, process.name), "crashes"))


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake, the bad luck in which it shows, and the verdict that the search must reach."""

    mistake: type[Protocol] | type[Moves]
    verdict: frozenset[str]
    faults: Faults
    mesh: type[Moves] = Moves

    def moves(self) -> Moves:
        if issubclass(self.mistake, Protocol):
            return self.mesh(self.mistake(deaths=2))
        return self.mistake(Protocol(deaths=2))


def _mutant(mistake: type[Protocol] | type[Moves], verdict: str, mesh: type[Moves] = Moves, **faults: int) -> Mutant:
    return Mutant(mistake, frozenset(verdict.split(", ")) - {"nothing"}, Faults(**faults), mesh)


MUTANTS = (
    _mutant(NoOwnerCheck, "nothing", crashes=1, losses=1, stalls=1),
    _mutant(NoAttemptCheck, "FALSE OK", crashes=1, losses=1, stalls=1),
    _mutant(NoFence, "FALSE OK", stalls=1),
    _mutant(NoStateCheck, "GHOST", losses=1, stalls=1),
    _mutant(ReleaseWithoutFence, "CHANGED", stalls=1, releases=1),
    _mutant(NoRepeat, "FALSE STALE", losses=1),
    _mutant(RepeatByState, "FALSE OK", stalls=1),
    _mutant(PoisonKeepsOwner, "FALSE OK", stalls=1, crashes=1),
    _mutant(AttemptHandedBack, "BACKWARDS", releases=1),
    _mutant(DropsWhatItCannotStart, "LOST", crashes=1, losses=1),
    _mutant(DropsWhatOthersRun, "LOST", crashes=1, stalls=1),
    _mutant(ClaimsWithoutPending, "nothing", crashes=1, losses=1, stalls=1),
    _mutant(DeathsNotCounted, "ENDLESS", mesh=Deadly, crashes=20),
    _mutant(ClaimsFromTheLiving, "UNDESERVED"),
    _mutant(HandsBackWhatItRuns, "RERUN, ENDLESS"),
    _mutant(SweepsItself, "nothing", losses=1, stalls=1),
    _mutant(BlindRenew, "NO ENTRY, ENDLESS", crashes=1, stalls=1),
    _mutant(DropsStraysOfOthers, "LOST", crashes=1, regroups=1),
    _mutant(KeepsStraysOfOthers, "LOST", crashes=1, regroups=1),
    _mutant(HandsBackStraysOfOthers, "nothing", regroups=1),
    _mutant(DeletesConsumers, "LOST", crashes=1),
    _mutant(NoDedupe, "CHANGED", losses=1),
    _mutant(EntryForEveryRequest, "GHOST", crashes=1, losses=1),
    _mutant(NoEntryCheck, "GHOST, NO ENTRY, RERUN, ENDLESS", crashes=1, losses=1),
    _mutant(OrphanWhoeverRunsIt, "NO ENTRY, GHOST", crashes=1, losses=1),
    _mutant(SettleWithoutAck, "GHOST", crashes=1, stalls=1),
    _mutant(CancelLeavesEntry, "GHOST", crashes=1, cancels=1),
    _mutant(CancelledStarts, "CHANGED", cancels=1),
    _mutant(StraysFromAList, "CHANGED", losses=1, stalls=1),
    _mutant(AckFirst, "LOST", crashes=1),
    _mutant(ResultFirst, "GHOST", crashes=1, losses=1),
    _mutant(TimerFirst, "LOST", crashes=1),
    _mutant(MarkFirst, "LOST", crashes=1),
)
