"""The state of the small exhaustive model: what Redis holds, what the agents remember, what is still on the wire.

Everything is an immutable tuple, so that a state is its own key in the search. One process start is one name, A, B, C
and so on, given when it first does something: fresh processes are all alike, and an idle one that nothing remembers is
as good as fresh. Only what decides the fate of a task is here; payloads, texts and clocks are not. **There is no clock
at all**: a timer is a move that may happen at any time. Where a timer would have to be wrong for it to happen now, the
move is a fault and has to be paid for (`Faults`); so whatever holds here, holds with every clock wrong.
"""

from typing import NamedTuple

ABSENT, QUEUED, DELAYED, RUNNING = "absent", "queued", "delayed", "running"
SUCCEEDED, CANCELLED, DEAD = "succeeded", "cancelled", "dead"
FINAL = frozenset({SUCCEEDED, CANCELLED, DEAD})  # `failed` and `expired` take the paths of `succeeded` and `cancelled`

NOBODY = ""  # holder of an entry that was not delivered yet
LIMBO = "limbo"  # delivered, but in nobody's pending list: no command ever brings it back (mutants only)

Execution = tuple[str, int]  # (process, attempt): one start of the handler
Copy = tuple[object, ...]  # a request whose sender gave up on it: it may reach Redis now, later or never


class Record(NamedTuple):
    """The HASH of one task."""

    state: str = ABSENT
    entry: int = 0  # its current stream entry; 0 = none
    agent: str = ""
    attempt: int = 0  # the fence
    failures: int = 0
    deaths: int = 0
    cancel: bool = False
    result: Execution | None = None  # whose outcome is recorded; ("client", 0) and ("poison", 0) are outcomes too


class Entry(NamedTuple):
    """One entry of the task stream, with the consumer whose pending list it is in."""

    id: int
    task: int
    holder: str = NOBODY


class Hold(NamedTuple):
    """One execution inside a process. `decided`: the outcome that it is trying to deliver, once it tried."""

    task: int
    entry: int
    attempt: int
    decided: str = ""


class Process(NamedTuple):
    """One agent process. `read`: the entry its blocking read brought, not yet passed to the claim script."""

    name: str
    read: int = 0
    holds: tuple[Hold, ...] = ()
    memory: tuple[object, ...] = ()  # what it has in mind between the two halves of a change (mutants only)


class Faults(NamedTuple):
    """What may still go wrong, or be asked for, on the way from here."""

    crashes: int = 0  # SIGKILL
    losses: int = 0  # a request whose sender hears nothing: request lost, reply lost, or executed much later
    stalls: int = 0  # a living agent is taken for dead: expired by mistake, paused, cut off
    early: int = 0  # hand-back of an entry whose reply is still on its way, or that is running
    releases: int = 0  # an agent hands a task back unfinished
    cancels: int = 0
    regroups: int = 0  # the consumer group is lost and made anew: everything is delivered again


class State(NamedTuple):
    """All of it."""

    records: tuple[Record, ...]
    entries: tuple[Entry, ...]
    due: tuple[int, ...]
    processes: tuple[Process, ...]  # those alive that did something; the others have no name yet
    unsure: tuple[int, ...]  # tasks whose client has not been told `ok` yet and asks again
    wire: tuple[Copy, ...]
    faults: Faults
    last_entry: int


def first_state(tasks: int, faults: Faults) -> State:
    """An empty Redis, and a client that wants `tasks` tasks done."""
    return State((Record(),) * tasks, (), (), (), tuple(range(tasks)), (), faults, 0)


def entry_of(state: State, entry_id: int) -> Entry | None:
    for entry in state.entries:
        if entry.id == entry_id:
            return entry
    return None


def alive(state: State, name: str) -> bool:
    return name in [process.name for process in state.processes]


def remembered(state: State, name: str) -> bool:
    """Whether Redis or the wire still knows this name."""
    for entry in state.entries:
        if entry.holder == name:
            return True
    for record in state.records:
        if record.agent == name or (record.result and record.result[0] == name):
            return True
    return name in [copy[1] for copy in state.wire]


def fresh_process(state: State) -> Process:
    """One that just started."""
    return Process(next(name for name in "ABCDEFGH" if not alive(state, name) and not remembered(state, name)))


def forget_idle(state: State) -> State:
    """Without the processes that cannot be told from fresh ones."""
    for process in state.processes:
        if not any(process[1:]) and not remembered(state, process.name):
            return forget_idle(without_process(state, process.name))
    return state


def with_record(state: State, task: int, record: Record) -> State:
    records = (record,) if len(state.records) == 1 else (*state.records[:task], record, *state.records[task + 1 :])
    return State(records, *state[1:])


def with_process(state: State, process: Process) -> State:
    others = [other for other in state.processes if other.name != process.name]
    return state._replace(processes=tuple(sorted((*others, process))))


def without_process(state: State, name: str) -> State:
    return state._replace(processes=tuple(process for process in state.processes if process.name != name))


def add_entry(state: State, task: int) -> State:
    """XADD. The new id is `last_entry`."""
    entry_id = state.last_entry + 1
    return state._replace(entries=(*state.entries, Entry(entry_id, task)), last_entry=entry_id)


def drop_entry(state: State, entry_id: int) -> State:
    """XACK and XDEL: neither asks who does it, or whether the entry is there."""
    return state._replace(entries=tuple(entry for entry in state.entries if entry.id != entry_id))


def give_entry(state: State, entry_id: int, holder: str) -> State:
    """XREADGROUP or XCLAIM: into the pending list of `holder`."""
    entries = tuple(entry._replace(holder=holder) if entry.id == entry_id else entry for entry in state.entries)
    return state._replace(entries=entries)
