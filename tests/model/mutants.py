"""The same protocol with one mistake each.

This tests the test: a model that finds no flaw in a wrong protocol proves nothing about the right one. It also says what
each guard is good for. `verdicts.py` says what becomes of each.
"""

from collections.abc import Iterator

from tests.model.moves import CHOICE, FAULT, PROGRESS, Move, Moves, pay
from tests.model.protocol import Protocol
from tests.model.state import (
    ABSENT,
    DEAD,
    LIMBO,
    NOBODY,
    QUEUED,
    RUNNING,
    Entry,
    Process,
    Record,
    State,
    add_entry,
    alive,
    drop_entry,
    entry_of,
    give_entry,
    with_process,
    with_record,
    without_process,
)

# -- the fence ---------------------------------------------------------------------------------------------------------


class NoOwnerCheck(Protocol):
    """The fence asks for the attempt alone. Attempts are unique per task, so this holds; it needs no luck but a fence
    that never goes back, and that is what a restored backup or a failover takes away."""

    def owns(self, record: Record, me: str, attempt: int) -> bool:
        return record.state == RUNNING and record.attempt == attempt


class NoAttemptCheck(Protocol):
    """The fence asks for the owner alone: it cannot tell two attempts of one agent apart."""

    def owns(self, record: Record, me: str, attempt: int) -> bool:
        return record.state == RUNNING and record.agent == me


class NoFence(Protocol):
    """Whoever comes may settle a running task."""

    def owns(self, record: Record, me: str, attempt: int) -> bool:
        return record.state == RUNNING


class NoStateCheck(Protocol):
    """Owner and attempt are asked for, but not whether the task is running still."""

    def owns(self, record: Record, me: str, attempt: int) -> bool:
        return record.agent == me and record.attempt == attempt


class ReleaseWithoutFence(Protocol):
    """Handing back is harmless, is it not?"""

    def settle(self, state: State, me: str, task: int, entry: int, attempt: int, outcome: str) -> tuple[State, str]:
        if outcome == "release":
            return self.write_outcome(self.finish_entry(state, entry), me, task, attempt, outcome), "ok"
        return super().settle(state, me, task, entry, attempt, outcome)


class NoRepeat(Protocol):
    """A settle whose reply was lost cannot be asked again."""

    def said_before(self, record: Record, me: str, attempt: int, outcome: str) -> bool:
        return False


class RepeatByState(Protocol):
    """A settle counts as said before when the record looks as it would have left it, whoever did that."""

    def said_before(self, record: Record, me: str, attempt: int, outcome: str) -> bool:
        return super().said_before(record, record.agent, record.attempt, outcome)


class PoisonKeepsOwner(Protocol):
    """A dead letter for poison leaves the name and the attempt of the last owner in the record: should it live after
    all and give up by itself, it is told that its own last word was recorded."""

    def claim_orphan(self, state: State, me: str, entry: Entry) -> State:
        owner = state.records[entry.task].agent
        state = super().claim_orphan(state, me, entry)
        record = state.records[entry.task]
        return with_record(state, entry.task, record._replace(agent=owner)) if record.state == DEAD else state


class AttemptHandedBack(Protocol):
    """A release does not burn an attempt, so it takes it back. Retries have a counter of their own: `failures`."""

    def write_outcome(self, state: State, me: str, task: int, attempt: int, outcome: str) -> State:
        state = super().write_outcome(state, me, task, attempt, outcome)
        if outcome != "release":
            return state
        record = state.records[task]
        return with_record(state, task, record._replace(attempt=record.attempt - 1))


# -- claims ------------------------------------------------------------------------------------------------------------


class DropsWhatItCannotStart(Protocol):
    """What is not to be started is taken away. But a claim that is asked again, since its reply was lost, finds the task
    running, by itself: it takes away the only entry of a task that nobody runs."""

    def leftover(self, record: Record, entry: Entry) -> bool:
        return True


class ClaimsWithoutPending(Protocol):
    """What a blocking read brought is started without a look at the pending list: the record says it all."""

    def claim(self, state: State, me: str, entry_id: int) -> State:
        entry = entry_of(state, entry_id)
        if entry is None:
            return state
        record = state.records[entry.task]
        if self.startable(record, entry):
            return self.start(state, me, entry)
        return drop_entry(state, entry_id) if self.leftover(record, entry) else state


class DropsWhatOthersRun(ClaimsWithoutPending):
    """Both mistakes: an agent that stalled between its read and its claim takes away what another one runs by now."""

    def leftover(self, record: Record, entry: Entry) -> bool:
        return True


class DeathsNotCounted(Protocol):
    """Poison: a task that kills whoever runs it."""

    def count_death(self, record: Record) -> Record:
        return record


class ClaimsFromTheLiving(Moves):
    """Whatever is pending with somebody else may be taken, by idle time alone, with no look at the registry."""

    def gone(self, state: State, name: str) -> bool:
        return True


class HandsBackWhatItRuns(Moves):
    """Every entry that is pending with me is a stray, whether I know it or not."""

    def hand_back(self, state: State, process: Process) -> Iterator[Move]:
        for entry in state.entries:
            if entry.holder == process.name:
                after = self.protocol.hand_back(state, process.name, entry, self.forsaken(state, entry))
                yield Move(PROGRESS, (process.name, "hands back", entry.id), after)


class SweepsItself(Moves):
    """An agent that was taken for dead comes back, sweeps first, and finds an orphan: its own running task."""

    def claims(self, state: State, me: str) -> Iterator[tuple[str, int, State]]:
        yield from super().claims(state, me)
        if state.faults.stalls:
            for entry in state.entries:
                if entry.holder == me:
                    yield FAULT, entry.id, pay(self.protocol.claim_orphan(state, me, entry), "stalls")


class BlindRenew(Protocol):
    """Renewal is a plain XCLAIM, whoever runs the task by now: two that hold it take it from each other for ever."""

    def renew(self, state: State, me: str, task: int, entry_id: int, attempt: int) -> State:
        entry = entry_of(state, entry_id)
        return state if entry is None or entry.holder in (NOBODY, me) else give_entry(state, entry_id, me)


class DropsStraysOfOthers(Protocol):
    """A stray whose task another one runs is none of my business: away with it."""

    def hand_back(self, state: State, me: str, entry: Entry, forsaken: bool) -> State:
        after = super().hand_back(state, me, entry, forsaken=False)
        return drop_entry(state, entry.id) if after is state else after


class KeepsStraysOfOthers(Protocol):
    """The owner's next renewal takes it, says everybody; but the owner may be dead."""

    def hand_back(self, state: State, me: str, entry: Entry, forsaken: bool) -> State:
        return super().hand_back(state, me, entry, forsaken=False)


class HandsBackStraysOfOthers(Protocol):
    """It is handed back at once, though its owner lives and is at it: the task runs twice, and one run is for nothing."""

    def hand_back(self, state: State, me: str, entry: Entry, forsaken: bool) -> State:
        return super().hand_back(state, me, entry, forsaken=True)


class DeletesConsumers(Moves):
    """XGROUP DELCONSUMER of a dead agent with entries pending: they stay in the stream, and nobody ever gets them."""

    def timers(self, state: State) -> Iterator[Move]:
        yield from super().timers(state)
        for entry in state.entries:
            if entry.holder not in ("", LIMBO) and not alive(state, entry.holder):
                yield Move(CHOICE, ("anybody", "DELCONSUMER", entry.holder), give_entry(state, entry.id, LIMBO))

    def gone(self, state: State, name: str) -> bool:
        return name != LIMBO and super().gone(state, name)

    def claims(self, state: State, me: str) -> Iterator[tuple[str, int, State]]:
        for kind, entry_id, after in super().claims(state, me):
            entry = entry_of(state, entry_id)
            if entry and entry.holder != LIMBO:
                yield kind, entry_id, after


# -- entries -----------------------------------------------------------------------------------------------------------


class NoDedupe(Protocol):
    """The id is a name, not a key: every request makes the task anew."""

    def enqueue(self, state: State, task: int) -> State:
        state = add_entry(state, task)
        return with_record(state, task, state.records[task]._replace(state=QUEUED, entry=state.last_entry))


class EntryForEveryRequest(Protocol):
    """The record knows the id, the stream does not: each request adds an entry, as a bare XADD with a known id does."""

    def enqueue(self, state: State, task: int) -> State:
        known = state.records[task].state != ABSENT
        return add_entry(state, task) if known else super().enqueue(state, task)


class NoEntryCheck(EntryForEveryRequest):
    """And any entry of a queued task will do: the task runs by one entry while its record names another one."""

    def startable(self, record: Record, entry: Entry) -> bool:
        return record.state == QUEUED


class OrphanWhoeverRunsIt(EntryForEveryRequest):
    """And an entry of somebody who is gone is taken over, whoever runs its task by now."""

    def orphaned(self, record: Record, entry: Entry) -> bool:
        return record.state in (QUEUED, RUNNING)


class SettleWithoutAck(Protocol):
    """The entry of a settled, retried or released task stays pending with its last owner."""

    def finish_entry(self, state: State, entry: int) -> State:
        return state


class CancelLeavesEntry(Protocol):
    """A queued task is cancelled by its record alone."""

    def cancel(self, state: State, task: int) -> State:
        record = state.records[task]
        after = super().cancel(state, task)
        return after._replace(entries=state.entries) if record.state == QUEUED else after


class CancelledStarts(CancelLeavesEntry):
    """The same, and the claim asks only whether this is the task's entry."""

    def startable(self, record: Record, entry: Entry) -> bool:
        return record.state != RUNNING and entry.id >= record.entry


class StraysFromAList(Moves):
    """Strays are listed in one call and handed back in another one, which trusts the list."""

    def hand_back(self, state: State, process: Process) -> Iterator[Move]:
        known = {process.read, *(hold.entry for hold in process.holds)}
        for entry in state.entries:
            if entry.holder == process.name and entry.id not in known and not process.memory:
                listed = process._replace(memory=(entry.id, entry.task))
                yield Move(PROGRESS, (process.name, "lists stray", entry.id), with_process(state, listed))
        if process.memory:
            entry_id, task = (int(str(part)) for part in process.memory)
            after = self.protocol.requeue(drop_entry(state, entry_id), task)
            after = with_process(after, process._replace(memory=()))
            yield Move(PROGRESS, (process.name, "hands back", entry_id), after)


# -- one change in two calls -------------------------------------------------------------------------------------------


class Halves(Moves):
    """A script cut in two: its sender may die between the halves."""

    def bad_luck(self, state: State) -> Iterator[Move]:
        yield from super().bad_luck(state)
        if state.faults.crashes:
            for process in state.processes:
                for what, after in self.first_half(state, process):
                    after = pay(without_process(after, process.name), "crashes")
                    yield Move(FAULT, (process.name, what, "and dies"), after)

    def first_half(self, state: State, process: Process) -> Iterator[tuple[str, State]]:
        raise NotImplementedError


class AckFirst(Halves):
    """Ack, then result."""

    def first_half(self, state: State, process: Process) -> Iterator[tuple[str, State]]:
        for hold in process.holds:
            yield "acks", drop_entry(state, hold.entry)


class ResultFirst(Halves):
    """Result, then ack: an entry too much is swept away sooner or later."""

    def first_half(self, state: State, process: Process) -> Iterator[tuple[str, State]]:
        for hold in process.holds:
            if self.protocol.owns(state.records[hold.task], process.name, hold.attempt):
                after = self.protocol.write_outcome(state, process.name, hold.task, hold.attempt, "succeed")
                yield "writes the result", after


class TimerFirst(Halves):
    """due_fire: out of the set, then into the stream."""

    def first_half(self, state: State, process: Process) -> Iterator[tuple[str, State]]:
        for task in state.due:
            yield "takes the timer", state._replace(due=tuple(other for other in state.due if other != task))


class MarkFirst(Moves):
    """Enqueue: the id is marked as known, then the entry is added. The client dies between, and asks again."""

    def client(self, state: State) -> Iterator[Move]:
        yield from super().client(state)
        if state.faults.crashes:
            for task in state.unsure:
                if state.records[task].state == ABSENT:
                    after = with_record(state, task, Record(QUEUED))
                    yield Move(FAULT, ("client", "marks", task, "and dies"), pay(after, "crashes"))
