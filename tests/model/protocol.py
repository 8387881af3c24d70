"""The protocol as it should be: every method is one Lua script, that is, one atomic change of what Redis holds.

This is the shortest complete statement of how a task moves; `streammesh/lua` says the same with batches, lanes, texts
and times. Each guard is a method of its own, so that `mutants.py` can take one away and `test_model.py` can show what
that guard was good for.
"""

from tests.model.state import (
    ABSENT,
    CANCELLED,
    DEAD,
    DELAYED,
    NOBODY,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    Entry,
    Record,
    State,
    add_entry,
    drop_entry,
    entry_of,
    give_entry,
    with_record,
)

LEAVES = {"succeed": SUCCEEDED, "retry": DELAYED, "dead": DEAD, "release": QUEUED, "cancel": CANCELLED}


class Protocol:
    """All scripts. `retries` and `deaths` are the limits of the one capability in the model."""

    def __init__(self, retries: int = 1, deaths: int = 3) -> None:
        self.retries = retries
        self.deaths = deaths

    # -- guards ------------------------------------------------------------------------------------------------------

    def owns(self, record: Record, me: str, attempt: int) -> bool:
        """The fence: this execution, and no other one, may change the task."""
        return record.state == RUNNING and record.agent == me and record.attempt == attempt

    def said_before(self, record: Record, me: str, attempt: int, outcome: str) -> bool:
        """The repeat of a settle whose reply was lost."""
        return record.agent == me and record.attempt == attempt and record.state == LEAVES[outcome]

    def startable(self, record: Record, entry: Entry) -> bool:
        return record.state == QUEUED and record.entry == entry.id

    def orphaned(self, record: Record, entry: Entry) -> bool:
        """Asked only when the holder of the entry is gone: the one who runs it has to be that same holder."""
        return self.startable(record, entry) or (
            record.state == RUNNING and record.entry == entry.id and record.agent == entry.holder
        )

    def leftover(self, record: Record, entry: Entry) -> bool:
        """No task will ever need this entry. The entry of a running task is never one: a claim that is asked again, since
        its reply was lost, meets the task that it has just started itself."""
        return record.entry != entry.id

    # -- scripts -----------------------------------------------------------------------------------------------------

    def enqueue(self, state: State, task: int) -> State:
        """task_enqueue: a known id changes nothing."""
        if state.records[task].state != ABSENT:
            return state
        state = add_entry(state, task)
        return with_record(state, task, Record(QUEUED, state.last_entry))

    def claim(self, state: State, me: str, entry_id: int) -> State:
        """task_claim, an entry that is in my pending list: read in this script, or earlier by my blocking read."""
        entry = entry_of(state, entry_id)
        if entry is None or entry.holder != me:
            return state
        record = state.records[entry.task]
        if self.startable(record, entry):
            return self.start(state, me, entry)
        return drop_entry(state, entry_id) if self.leftover(record, entry) else state

    def claim_orphan(self, state: State, me: str, entry: Entry) -> State:
        """task_claim, an entry pending with somebody who is gone. A death counts only when the task was running."""
        record = state.records[entry.task]
        if not self.orphaned(record, entry):
            return drop_entry(state, entry.id) if self.leftover(record, entry) else give_entry(state, entry.id, me)
        if record.state == RUNNING:
            record = self.count_death(record)
            # the owner's name goes with it: it may live after all, and its late settle must not read this as its own
            if record.cancel:
                record = record._replace(state=CANCELLED, entry=0, agent="", result=("client", 0))
            elif record.deaths >= self.deaths:
                record = record._replace(state=DEAD, entry=0, agent="", result=("poison", 0))
            state = with_record(state, entry.task, record)
            if record.state != RUNNING:
                return drop_entry(state, entry.id)
        return self.start(give_entry(state, entry.id, me), me, entry)

    def start(self, state: State, me: str, entry: Entry) -> State:
        record = state.records[entry.task]
        return with_record(state, entry.task, record._replace(state=RUNNING, agent=me, attempt=record.attempt + 1))

    def count_death(self, record: Record) -> Record:
        return record._replace(deaths=record.deaths + 1)

    def settle(self, state: State, me: str, task: int, entry: int, attempt: int, outcome: str) -> tuple[State, str]:
        """task_settle: result, ack, delete and what comes next, all in one."""
        record = state.records[task]
        if not self.owns(record, me, attempt):
            return state, "ok" if self.said_before(record, me, attempt, outcome) else "stale"
        return self.write_outcome(self.finish_entry(state, entry), me, task, attempt, outcome), "ok"

    def finish_entry(self, state: State, entry: int) -> State:
        return drop_entry(state, entry)

    def write_outcome(self, state: State, me: str, task: int, attempt: int, outcome: str) -> State:
        record = state.records[task]
        if outcome == "release":
            return self.requeue(state, task)
        if outcome == "retry":
            record = record._replace(state=DELAYED, entry=0, failures=record.failures + 1)
            return with_record(state, task, record)._replace(due=(*state.due, task))
        record = record._replace(state=LEAVES[outcome], entry=0, result=(me, attempt))
        return with_record(state, task, record)

    def requeue(self, state: State, task: int) -> State:
        state = add_entry(state, task)
        return with_record(state, task, state.records[task]._replace(state=QUEUED, entry=state.last_entry))

    def renew(self, state: State, me: str, task: int, entry_id: int, attempt: int) -> State:
        """task_renew, what I hold: mine still, then it is pending with me, whoever it was delivered to meanwhile."""
        entry = entry_of(state, entry_id)
        if entry is None or entry.holder in (NOBODY, me) or not self.owns(state.records[task], me, attempt):
            return state
        return give_entry(state, entry_id, me)

    def hand_back(self, state: State, me: str, entry: Entry, forsaken: bool) -> State:
        """task_renew, strays: pending with me, but I do not know it, since the reply that told me was lost.

        A stray that another one runs (the group was made anew) stays here for the owner's next renewal. It is handed
        back when that has not come for many leases: then it is `forsaken`.
        """
        record = state.records[entry.task]
        mine = record.state == RUNNING and record.agent == me and record.entry == entry.id
        if mine or self.startable(record, entry):
            return self.requeue(drop_entry(state, entry.id), entry.task)
        if self.leftover(record, entry):
            return drop_entry(state, entry.id)
        return self.requeue(drop_entry(state, entry.id), entry.task) if forsaken else state

    def due_fire(self, state: State, task: int) -> State:
        if state.records[task].state != DELAYED or task not in state.due:
            return state
        return self.requeue(state._replace(due=tuple(other for other in state.due if other != task)), task)

    def cancel(self, state: State, task: int) -> State:
        record = state.records[task]
        if record.state == RUNNING:
            return with_record(state, task, record._replace(cancel=True))
        if record.state == QUEUED:
            state = self.finish_entry(state, record.entry)
        elif record.state == DELAYED:
            state = state._replace(due=tuple(other for other in state.due if other != task))
        else:
            return state
        return with_record(state, task, record._replace(state=CANCELLED, entry=0, agent="", result=("client", 0)))
