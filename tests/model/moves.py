"""Who may do what next: every agent, the client, the wire and bad luck, one atomic step at a time.

Moves come in three kinds. `PROGRESS` is what a healthy mesh does by itself sooner or later; it must be enough to bring
every task home. `CHOICE` may be taken or not (a handler fails, an operator cancels, an agent drains), so nothing may
depend on it. `FAULT` is bad luck, each piece paid from `State.faults`.

A request and its execution are one step where nothing can come between that matters: what a request says (owner,
attempt, outcome) is fixed when the execution starts, not when it is sent. A lost request, a lost reply and a request
that reaches Redis long after its sender gave up are all the same move here: a copy stays on the wire, where it may be
executed at any later time, or never, and its sender goes on without an answer.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.model.protocol import LEAVES, Protocol
from tests.model.state import (
    FINAL,
    NOBODY,
    Copy,
    Entry,
    Faults,
    Hold,
    Process,
    State,
    alive,
    fresh_process,
    give_entry,
    with_process,
    without_process,
)

PROGRESS, CHOICE, FAULT = "progress", "choice", "fault"


class Move(NamedTuple):
    """One step. `wrong`: what somebody was told that is not true, or empty."""

    kind: str
    what: tuple[object, ...]
    state: State
    wrong: str = ""


class Moves:
    """All moves of a mesh that follows `protocol`."""

    size = 2  # processes at one time
    slots = 2  # of each, so that a process can meet its own earlier attempt

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def all(self, state: State) -> Iterator[Move]:
        yield from self.client(state)
        yield from self.timers(state)
        yield from self.bad_luck(state)
        processes = state.processes
        if len(processes) < self.size:
            processes = (*processes, fresh_process(state))
        for process in processes:
            yield from self.read(state, process)
            yield from self.claim(state, process)
            yield from self.settle(state, process)
            yield from self.renew(state, process)
            yield from self.hand_back(state, process)

    # -- the client and the timers -----------------------------------------------------------------------------------

    def client(self, state: State) -> Iterator[Move]:
        for task in state.unsure:
            told = state._replace(unsure=tuple(other for other in state.unsure if other != task))
            yield Move(PROGRESS, ("client", "enqueue", task), self.protocol.enqueue(told, task))
            if state.faults.losses:
                yield Move(FAULT, ("client", "enqueue unanswered", task), sent(state, ("enqueue", task)))
        if state.faults.cancels:
            for task, record in enumerate(state.records):
                after = self.protocol.cancel(state, task)
                if after is not state and not record.cancel:
                    yield Move(CHOICE, ("client", "cancel", task), pay(after, "cancels"))

    def timers(self, state: State) -> Iterator[Move]:
        for task in state.due:
            yield Move(PROGRESS, ("anybody", "due_fire", task), self.protocol.due_fire(state, task))

    # -- bad luck ----------------------------------------------------------------------------------------------------

    def bad_luck(self, state: State) -> Iterator[Move]:
        if state.faults.crashes:
            for process in state.processes:
                yield Move(FAULT, (process.name, "SIGKILL"), pay(without_process(state, process.name), "crashes"))
        if state.faults.regroups and any(entry.holder for entry in state.entries):
            anew = tuple(entry._replace(holder=NOBODY) for entry in state.entries)
            yield Move(FAULT, ("server", "loses the group"), pay(state._replace(entries=anew), "regroups"))
        for position, copy in enumerate(state.wire):
            rest = state._replace(wire=state.wire[:position] + state.wire[position + 1 :])
            for after in self.late(rest, copy):
                yield Move(FAULT, ("wire", "executes", *copy), after)

    def late(self, state: State, copy: Copy) -> Iterator[State]:
        """A request without anybody who waits for its answer; its sender may be dead by now."""
        match copy:
            case ("enqueue", int(task)):
                yield self.protocol.enqueue(state, task)
            case ("settle", str(name), int(task), int(entry), int(attempt), str(outcome)):
                yield self.protocol.settle(state, name, task, entry, attempt, outcome)[0]
            case ("read", str(name)):
                for new in waiting(state):
                    yield give_entry(state, new.id, name)
            case ("claim", str(name), int(read)):
                if read:
                    yield self.protocol.claim(state, name, read)
                else:
                    for _, _, after in self.claims(state, name):
                        yield after

    # -- one agent ---------------------------------------------------------------------------------------------------

    def read(self, state: State, process: Process) -> Iterator[Move]:
        """The blocking XREADGROUP of an idle agent."""
        if process.read or len(process.holds) >= self.slots:
            return
        for entry in waiting(state):
            after = give_entry(state, entry.id, process.name)
            yield Move(
                PROGRESS, (process.name, "reads", entry.id), with_process(after, process._replace(read=entry.id))
            )
            if state.faults.losses:
                yield Move(FAULT, (process.name, "read unanswered"), sent(state, ("read", process.name)))

    def claim(self, state: State, process: Process) -> Iterator[Move]:
        me = process.name
        if process.read:
            after = self.protocol.claim(state, me, process.read)
            forgotten = process._replace(read=0)
            yield Move(
                PROGRESS,
                (me, "claims what it read", process.read),
                self.hold(state, after, forgotten, process.read),
            )
            if state.faults.losses:  # it may ask once more with the same entry, or forget about it
                unanswered = sent(state, ("claim", me, process.read))
                yield Move(FAULT, (me, "claim unanswered, asks again", process.read), unanswered)
                yield Move(FAULT, (me, "claim unanswered", process.read), with_process(unanswered, forgotten))
        if len(process.holds) + bool(process.read) >= self.slots:
            return
        any_work = False
        for kind, entry_id, after in self.claims(state, me):
            any_work = True
            yield Move(kind, (me, "claims", entry_id), self.hold(state, after, process, entry_id))
        if any_work and state.faults.losses:
            yield Move(FAULT, (me, "claim unanswered"), sent(state, ("claim", me, 0)))

    def claims(self, state: State, me: str) -> Iterator[tuple[str, int, State]]:
        """What one call of the claim script may take: the oldest new entry, or one of somebody who is gone."""
        for entry in waiting(state):
            yield PROGRESS, entry.id, self.protocol.claim(give_entry(state, entry.id, me), me, entry.id)
        for entry in state.entries:
            if entry.holder and entry.holder != me:
                after = self.protocol.claim_orphan(state, me, entry)
                if after is state:
                    continue
                if self.gone(state, entry.holder):
                    yield PROGRESS, entry.id, after
                elif state.faults.stalls:
                    yield FAULT, entry.id, pay(after, "stalls")

    def gone(self, state: State, name: str) -> bool:
        """What the registry says, when it is right."""
        return not alive(state, name)

    def hold(self, before: State, after: State, process: Process, entry_id: int) -> State:
        """`after`, with what its reply tells the agent to run."""
        for task, record in enumerate(after.records):
            if record.attempt > before.records[task].attempt and record.agent == process.name:
                process = process._replace(holds=(*process.holds, Hold(task, entry_id, record.attempt)))
        return with_process(after, process)

    def settle(self, state: State, process: Process) -> Iterator[Move]:
        for hold in process.holds:
            done = tuple(other for other in process.holds if other is not hold)
            for kind, outcome in self.outcomes(state, hold):
                paid = pay(state, "releases") if outcome == "release" and not hold.decided else state
                free = with_process(paid, process._replace(holds=done))
                yield self.answered(free, process.name, kind, hold, outcome)
                if state.faults.losses:
                    tried = process._replace(holds=(*done, hold._replace(decided=outcome)))
                    copy = ("settle", process.name, hold.task, hold.entry, hold.attempt, outcome)
                    after = sent(with_process(paid, tried), copy)
                    yield Move(FAULT, (process.name, outcome, "unanswered", *hold[:3]), after)

    def outcomes(self, state: State, hold: Hold) -> Iterator[tuple[str, str]]:
        if hold.decided:  # it only repeats
            yield PROGRESS, hold.decided
            return
        record = state.records[hold.task]
        yield PROGRESS, "succeed"
        yield CHOICE, "retry" if record.failures < self.protocol.retries else "dead"
        if record.cancel:
            yield CHOICE, "cancel"
        if state.faults.releases:
            yield CHOICE, "release"

    def answered(self, state: State, me: str, kind: str, hold: Hold, outcome: str) -> Move:
        """A settle with its answer, and whether that answer is true."""
        after, answer = self.protocol.settle(state, me, hold.task, hold.entry, hold.attempt, outcome)
        record = after.records[hold.task]
        recorded = record.state in FINAL and record.result == (me, hold.attempt)
        wrong = ""
        if answer == "ok" and LEAVES[outcome] in FINAL and not recorded:
            wrong = "FALSE OK"
        if answer == "stale" and recorded:
            wrong = "FALSE STALE"
        return Move(kind, (me, outcome, answer, *hold[:3]), after, wrong)

    def renew(self, state: State, process: Process) -> Iterator[Move]:
        for hold in process.holds:
            after = self.protocol.renew(state, process.name, hold.task, hold.entry, hold.attempt)
            if after is not state:
                yield Move(PROGRESS, (process.name, "renews", hold.entry), after)

    def hand_back(self, state: State, process: Process) -> Iterator[Move]:
        """Strays. One that is known here after all (reply on its way, request delayed) is a fault: its idle lied."""
        known = {process.read, *(hold.entry for hold in process.holds)}
        for entry in state.entries:
            if entry.holder == process.name:
                after = self.protocol.hand_back(state, process.name, entry, self.forsaken(state, entry))
                if after is state:
                    continue
                if entry.id not in known:
                    yield Move(PROGRESS, (process.name, "hands back", entry.id), after)
                elif state.faults.early:
                    yield Move(FAULT, (process.name, "hands back too early", entry.id), pay(after, "early"))

    def forsaken(self, state: State, entry: Entry) -> bool:
        """Whether nobody renews the task of this entry."""
        record = state.records[entry.task]
        owner = [process for process in state.processes if process.name == record.agent]
        return not any(hold.attempt == record.attempt for process in owner for hold in process.holds)


def waiting(state: State) -> Iterator[Entry]:
    """The oldest entry that nobody got yet, if there is one."""
    for entry in state.entries:
        if entry.holder == NOBODY:
            yield entry
            return


def pay(state: State, fault: str) -> State:
    left = list(state.faults)
    left[Faults._fields.index(fault)] -= 1
    return state._replace(faults=Faults(*left))


def sent(state: State, copy: Copy) -> State:
    """The sender heard nothing; the request is on the wire."""
    wire = tuple(sorted((*state.wire, copy), key=repr))
    return pay(state, "losses")._replace(wire=wire)
