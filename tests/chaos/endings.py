"""What must be true of runs after chaos: each ended once with the right result, what is on record ran once in effect,
its journal replays, and nothing is left over."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streammesh import Mesh, codec
from streammesh.errors import NonDeterminism
from streammesh.execution import Execution
from streammesh.keys import Keys
from streammesh.workflow import Run
from tests.chaos.history import EVERYBODY, KILLS, STALLS, Event
from tests.chaos.tales import WORKFLOWS, Deed

__all__ = ["Found", "Judgement", "Tale", "judge", "leftovers", "read_runs"]

ENDED = frozenset(("succeeded", "failed", "cancelled"))


@dataclass(slots=True)
class Tale:
    """One run to be: its words, and what is done to it, in seconds after its start."""

    id: str
    words: list[str]
    cancel: float | None = None
    terminate: float | None = None
    pause: float | None = None
    again: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """One run as the server held it at the end."""

    id: str
    head: dict[str, str]
    journal: list[str]
    ttls: tuple[int, int]


@dataclass(slots=True)
class Judgement:
    """The report, and every broken promise."""

    lines: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        shown = [f"VIOLATION {one}" for one in self.violations[:25]]
        if len(self.violations) > 25:
            shown.append(f"and {len(self.violations) - 25} more")
        return "\n".join([*self.lines, *shown, f"violations {len(self.violations)}"])


async def leftovers(mesh: Mesh) -> list[str]:
    """What is still open, in words: entries, pending ones, timers, runs that have not ended."""
    store = mesh.store
    left: list[str] = []
    names: list[str] = []
    for kind in ("stream", "hash"):
        cursor = "0"
        while True:
            cursor, some = await store.command("SCAN", cursor, "COUNT", 1000, "TYPE", kind)
            names += [
                name
                for name in some
                if name.partition("}:")[2].startswith(("runs:", "tasks:", "inbox:", "mail:", "run:"))
            ]
            if cursor == "0":
                break
    heads = sorted({name for name in names if name.partition("}:")[2].startswith("run:")})
    streams = sorted(set(names) - set(heads))
    for name, length in zip(streams, await store.commands([("XLEN", name) for name in streams]), strict=True):
        if length:
            left.append(f"{length} entries in {name}")
    states = await store.commands([("HGET", name, "state") for name in heads])
    left += [f"{name} is {state}" for name, state in zip(heads, states, strict=True) if state not in ENDED]
    due: list[str] = await store.command("ZRANGE", mesh.keys.due(0), 0, -1)
    return left + [f"due: {member}" for member in due]


def read_runs(client: Any, namespace: str) -> list[Found]:
    """Every run with its journal."""
    prefix = f"{{{namespace}}}:run:"
    found = []
    for key in client.scan_iter(f"{prefix}*", count=1000):
        if not key.endswith((":journal", ":large")):
            ttls = (client.pttl(key), client.pttl(f"{key}:journal"))
            found.append(
                Found(key.removeprefix(prefix), client.hgetall(key), client.lrange(f"{key}:journal", 0, -1), ttls)
            )
    return sorted(found, key=lambda one: one.id)


def judge(
    tales: Sequence[Tale],
    found: Sequence[Found],
    done: Sequence[Deed],
    events: Sequence[Event],
    lease: float,
    lossy: bool = False,
) -> Judgement:
    """Every check over everything."""
    judgement = Judgement()
    by_id = {one.id: one for one in found}
    expected = {tale.id: tale for tale in tales}
    trial = _Trial(done, events, lease, lossy)
    say = judgement.violations.append
    for tale in tales:
        if tale.id not in by_id:
            say(f"{tale.id}: it was started, and is not there")
    states: Counter[str] = Counter()
    for one in found:
        states[one.head.get("state", "?")] += 1
        records = [codec.decode(text, limit=64 * 1024 * 1024) for text in one.journal]
        for text in (
            *_ended(one, records), *trial.effects(one, records), *_replays(one, records),
            *(_told(expected[one.id], one, records, lossy) if one.id in expected else ()),
        ):  # fmt: skip
            say(f"{one.id}: {text}")
    judgement.lines = [
        f"at the end: {', '.join(f'{state} {count}' for state, count in sorted(states.items()))}",
        (
            f"steps here {trial.counts['here']}, of these again {trial.counts['here again']}; "
            f"on any agent {trial.counts['elsewhere']}, of these again {trial.counts['elsewhere again']}; "
            f"replayed {sum(bool(one.journal) for one in found)} journals of {sum(len(one.journal) for one in found)} records"
        ),
    ]
    return judgement


def _ended(one: Found, records: list[dict[str, Any]]) -> Iterator[str]:
    ends = [record for record in records if record["what"] == "end"]
    state = one.head.get("state", "")
    if state not in ENDED:
        yield f"it is {state}, error {one.head.get('error')}, open {[name for name in one.head if name.startswith('open ')]}"
        return
    if len(ends) != 1 or records[-1] is not ends[0]:
        yield f"its journal has {len(ends)} ends"
    elif ends[0]["state"] != state:
        yield f"it is {state}, and its journal says {ends[0]['state']}"
    opened = [name for name in one.head if name.startswith("open ")]
    if opened:
        yield f"it has ended with {opened}"
    if min(one.ttls) < 0:
        yield f"no time to live: {one.ttls}"
    answers = Counter(
        record.get("of", record.get("path"))
        for record in records
        if record["what"] in ("done", "failed", "fired", "step")
    )
    for path, count in answers.items():
        if count > 1:
            yield f"{path} has {count} outcomes in the journal"
    given = Counter(record["path"] for record in records if record["what"] in ("call", "timer", "child", "begin"))
    for path, count in given.items():
        if count > 1:
            yield f"{path} was given {count} times"


def _told(tale: Tale, one: Found, records: list[dict[str, Any]], lossy: bool) -> Iterator[str]:
    """The result is the one that the words ask for."""
    state = one.head.get("state")
    allowed = {"succeeded"} | ({"cancelled"} if tale.cancel is not None or tale.terminate is not None else set())
    if state not in allowed:
        yield f"it ended {state}: {one.head.get('error')}"
    if state != "succeeded":
        return
    result = codec.decode(one.head["result"])
    if records[-1].get("result") != result:
        yield "its result is not the one in the journal"
    first = tale.again
    if len(result) != len(tale.words) - first:
        yield f"{len(result)} results for {len(tale.words) - first} steps"
    signals = 0
    before = tale.words[:first].count("signal")
    for n, (word, value) in enumerate(zip(tale.words[first:], result, strict=False), first):
        match word:
            case "signal":
                right = value == before + signals or lossy
                signals += 1
            case "call":
                right = value["n"] == 2 * n
            case "step" | "thread":
                right = value["n"] == n
            case "once":
                right = value == "doubt" or value["n"] == n
            case "child":
                right = (value[0]["n"], value[1]["n"]) == (n, 2 * n)
            case "both":
                right = (value[0]["n"], value[1]["n"], value[2]) == (2 * n, n, n)
            case "hasty":
                right = value == "late" or value["n"] == 2 * n
            case _:
                right = value == {"sleep": n, "patient": "nobody", "failing": "refused"}[word]
        if not right:
            yield f"step {n} ({word}) returned {value}"


def _replays(one: Found, records: list[dict[str, Any]]) -> Iterator[str]:
    """The code fits the journal, and comes to the same end without anything new."""
    workflow = WORKFLOWS[one.head["capability"]]
    keys = Keys("chaos")
    execution = Execution(one.id, lambda execution, input: workflow.function(Run(execution, keys), **input))  # type: ignore[arg-type,return-value]
    try:
        execution.load(one.journal)
        if execution.done and records[-1]["what"] == "end":
            state, value = execution.ending()
            # Whoever terminates a run may come between the last answer and the commit of its end.
            terminated = str(records[-1].get("error", "")).startswith(("terminated", "replaced"))
            if not terminated and (state, value) != (one.head["state"], one.journal and _value(one, state, value)):
                yield f"a replay ends {state} {value!r}, the run {one.head['state']}"
        elif records[-1].get("state") == "succeeded":
            yield "a replay does not come to the end"
        if execution.records and records[-1].get("state") == "succeeded":
            yield f"a replay gives what is not in the journal: {execution.records[:3]}"
    except NonDeterminism as error:
        yield f"it does not replay: {error}"
    finally:
        execution.close()


def _value(one: Found, state: str, value: Any) -> Any:
    if state != "succeeded":
        return value
    return value if codec.decode(value) == codec.decode(one.head.get("result", "null")) else None


class _Trial:
    """What was done, by run and path, and the faults that may explain it."""

    def __init__(self, done: Sequence[Deed], events: Sequence[Event], lease: float, lossy: bool) -> None:
        self._done: dict[tuple[str, str], list[Deed]] = defaultdict(list)
        self._tokens: dict[tuple[str, str], dict[str, Deed]] = defaultdict(dict)
        for deed in done:
            if deed.token:
                self._tokens[deed.id, deed.path][deed.token] = deed
            else:
                self._done[deed.id, deed.path].append(deed)
        self._faults = [event.data for event in events if event.op == "fault"]
        #: Whether a killed server may have lost what it had acknowledged: then what was on record may run again.
        self._lossy = lossy
        self._grace = 3 * lease
        self.counts: Counter[str] = Counter()

    def effects(self, one: Found, records: list[dict[str, Any]]) -> Iterator[str]:
        """Each recorded step ran once in effect."""
        generation = records[0].get("generation")
        self._of = f"{one.id}:g{generation}" if generation else one.id
        for record in records:
            if record["what"] == "step":
                yield from self._step(one, record)
            elif record["what"] == "done" and isinstance(record["result"], dict):
                yield from self._call(f"{self._of}:{record['of']}", record["result"])

    def _step(self, one: Found, record: dict[str, Any]) -> Iterator[str]:
        path = record["path"]
        times = self._done[one.id, path]
        self.counts["here"] += len(times)
        self.counts["here again"] += max(0, len(times) - 1)
        # In another generation the paths are the same; and where the end of a journal was lost, so are attempts.
        strict = not one.head.get("generation") and not self._lossy
        if "result" not in record:
            return
        recorded = self._tokens[one.id, path].get(record["result"]["token"])
        if recorded is None:
            yield f"step {path}: nobody did what is on record"
            return
        for deed in times:
            if deed.attempt > recorded.attempt and strict:
                yield f"step {path}: it ran in attempt {deed.attempt}, though it was on record since {recorded.attempt}"
        attempts = [deed.attempt for deed in times]
        if strict and len(set(attempts)) < len(attempts):
            yield f"step {path}: it ran twice in one attempt: {attempts}"
        if record["name"] == "jot_once" and len(times) > 1 and strict:
            yield f"step {path}: it ran {len(times)} times, and may run once at most"
        if not one.head.get("generation"):
            yield from self._explained(f"step {path}", times)

    def _call(self, task: str, result: dict[str, Any]) -> Iterator[str]:
        times = self._done[task, ""]
        if not times:
            return
        self.counts["elsewhere"] += len(times)
        self.counts["elsewhere again"] += max(0, len(times) - 1)
        if result["token"] not in self._tokens[task, ""]:
            yield f"task {task}: nobody did what is on record"
        yield from self._explained(f"task {task}", times)

    def _explained(self, what: str, times: list[Deed]) -> Iterator[str]:
        for number, deed in enumerate(times[1:], 1):
            before = times[number - 1]
            if not self._fault(before, deed):
                yield f"{what}: executed by {before.process} at {before.mono:.3f} and by {deed.process} at {deed.mono:.3f}, without a reason"

    def _fault(self, first: Deed, second: Deed) -> bool:
        for fault in self._faults:
            if fault["target"] not in (EVERYBODY, first.process, second.process):
                continue
            if fault["kind"] in KILLS and fault["begun"] >= first.mono - self._grace:
                return True
            if fault["kind"] in STALLS and fault["begun"] <= second.mono and fault["ended"] >= first.mono - self._grace:
                return True
        return False
