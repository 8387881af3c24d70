"""What must be true of a chaos run: the histories of all processes, the ledger of effects, and the end state of Redis.

    report = check(read_history(folder), read_final(redis, "mesh"), ledger.read(), grace=3 * lease)
    assert report.ok, str(report)

The rules are those of `RULES`. Number 6, the journals of runs, is for later.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.chaos.history import EVERYBODY, KILLS, STALLS, Event, Execution, Final

RULES = {
    1: "what was accepted is settled; told `created` was only the first; what was refused is not there",
    2: "one execution is told `ok` for an outcome; the record, and a client that waited, say what that one said",
    3: "an attempt is given out once, attempts rise in the order of claims, none starts after a later one settled",
    4: "what succeeded was executed, its effect was done once; each execution after the first has a reason",
    5: "a settled task is nowhere else, an open one is where its record says, a dead one has one dead letter",
    7: "what is not part of the mesh's structure has a time to live",
    8: "first deliveries of a stream to one process come in the order of the stream (only without faults)",
    9: "nothing starts before it is due",
    10: "two attempts of a task overlap only where somebody was paused, cut off or stalled",
}
ENDS = {
    "complete": "succeeded", "reject": "failed", "dead": "dead", "cancel": "cancelled", "expire": "expired",
}  # fmt: skip
FINAL = frozenset(ENDS.values())
AGAIN = frozenset({"fail", "again", "release"})  # verbs after which another attempt is wanted
WITHOUT_AGENT = frozenset({"cancelled", "expired", "dead"})  # ends that need no execution
#: Keys that stay: the structure of a mesh, and dead letters, which wait for a person. Written without the prefix.
LASTING = re.compile(
    r"(meta|caps|sweep|due|agents|inboxes|events|members|control|broadcast|(tasks|inbox|mail|dead|cap):[^{}]+)\Z"
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule, in words."""

    rule: int
    id: str
    text: str

    def __str__(self) -> str:
        return f"rule {self.rule}: {self.id}: {self.text}" if self.id else f"rule {self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement. `reruns`: executions after the first of a task; `unknown`: enqueues that nobody knows the fate of."""

    accepted: int
    unknown: int
    states: dict[str, int]
    executions: int
    reruns: int
    stale: int
    faults: dict[str, int]
    lost: tuple[str, ...]
    settled_twice: tuple[str, ...]
    violations: tuple[Violation, ...]
    timelines: dict[str, tuple[str, ...]]

    @property
    def ok(self) -> bool:
        return not self.violations

    def __str__(self) -> str:
        def counts(of: dict[str, int]) -> str:
            return " ".join(f"{name} {count}" for name, count in sorted(of.items())) or "none"

        lines = [
            f"accepted {self.accepted}, unknown {self.unknown}; at the end: {counts(self.states)}",
            f"executions {self.executions}, of these again {self.reruns}; told stale {self.stale}",
            f"faults: {counts(self.faults)}",
            f"lost {len(self.lost)}, settled twice {len(self.settled_twice)}, violations {len(self.violations)}",
        ]
        for violation in self.violations[:20]:
            lines.append(str(violation))
            lines += [f"    {line}" for line in self.timelines.get(violation.id, ())]
        if len(self.violations) > 20:
            lines.append(f"and {len(self.violations) - 20} more")
        return "\n".join(lines)


def check(
    events: Sequence[Event], final: Final, ledger: Sequence[Execution] | None = None, effects: Mapping[str, int] | None = None, *,
    grace: float = 0.0, ordered: bool = False,
) -> Report:  # fmt: skip
    """Judge a run. `ledger` and `effects` (task id -> how often its effect was applied): leave them out where there are
    none. `grace`: seconds for which a fault explains what comes after its end (a few leases). `ordered`: nothing was
    killed, retried or handed back."""
    trial = Trial(sorted(events, key=lambda event: event.mono), final, ledger, effects, grace)
    rules: list[Callable[[], Iterator[Violation]]] = [
        trial.rule_1, trial.rule_2, trial.rule_3, trial.rule_4, trial.rule_5, trial.rule_7, trial.rule_9, trial.rule_10,
    ]  # fmt: skip
    if ordered:
        rules.append(trial.rule_8)
    return trial.report(tuple(violation for rule in rules for violation in rule()))


class Trial:
    """The evidence, sorted by task, and the rules over it."""

    def __init__(
        self, events: Sequence[Event], final: Final, ledger: Sequence[Execution] | None, effects: Mapping[str, int] | None,
        grace: float,
    ) -> None:  # fmt: skip
        self.final = final
        self.effects = effects
        self.grace = grace
        self.faults = [event for event in events if event.op == "fault"]
        self.of: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.id:
                self.of[event.id].append(event)
        self.executed: dict[str, list[Execution]] = defaultdict(list)
        self.kept_ledger = ledger is not None
        for execution in ledger or ():
            self.executed[execution.id].append(execution)
        self.accepted = [id for id in self.of if self.said(id, "enqueue", "ok")]
        self.lost = [id for id in self.accepted if self.state(id) not in FINAL]
        self.twice: list[str] = []

    # -- what is known -----------------------------------------------------------------------------------------------

    def state(self, id: str) -> str:
        return self.final.records.get(id, {}).get("state", "missing")

    def said(self, id: str, op: str, *phases: str) -> list[Event]:
        return [event for event in self.of.get(id, ()) if event.op == op and event.phase in phases]

    def replays(self, id: str) -> int:
        """How often the task may have been run anew by hand."""
        return len(self.said(id, "replay", "ok", "info"))

    def explained(self, kinds: frozenset[str], names: set[str], since: float, until: float) -> bool:
        """Whether one of `names`, or the server, or everybody, suffered one of `kinds` of faults in this time."""
        for fault in self.faults:
            data = fault.data
            near = data["begun"] <= until and data["ended"] + self.grace >= since
            hit = data["target"] in names or data["target"] == EVERYBODY or data["kind"].startswith("server")
            if near and hit and data["kind"] in kinds:
                return True
        return False

    def report(self, violations: tuple[Violation, ...]) -> Report:
        executions = [len(self.said(id, "start", "ok")) for id in self.of]
        return Report(
            accepted=len(self.accepted),
            unknown=sum(not self.said(id, "enqueue", "ok", "fail") for id in self.of if self.said(id, "enqueue", "invoke")),
            states=dict(Counter(fields.get("state", "missing") for fields in self.final.records.values())),
            executions=sum(executions),
            reruns=sum(count - 1 for count in executions if count),
            stale=sum(len(self.said(id, "settle", "fail")) for id in self.of),
            faults=dict(Counter(fault.data["kind"] for fault in self.faults)),
            lost=tuple(self.lost),
            settled_twice=tuple(self.twice),
            violations=violations,
            timelines={one.id: tuple(map(str, self.of.get(one.id, ())[:40])) for one in violations[:20]},
        )  # fmt: skip

    # -- the rules ---------------------------------------------------------------------------------------------------

    def rule_1(self) -> Iterator[Violation]:
        for id in self.lost:
            yield Violation(1, id, f"lost: it was accepted, and at the end it is {self.state(id)}")
        for id in self.of:
            created = [event for event in self.said(id, "enqueue", "ok") if event.data.get("created")]
            if len(created) > 1:
                yield Violation(1, id, f"was created {len(created)} times")
            asked = self.said(id, "enqueue", "invoke")
            if len(self.said(id, "enqueue", "fail")) == len(asked) > 0 and id in self.final.records:
                yield Violation(1, id, f"every request was refused, and it is {self.state(id)}")
        for id in self.final.records:
            if not self.said(id, "enqueue", "invoke"):
                yield Violation(1, id, f"nobody enqueued it, and it is {self.state(id)}")
            elif id not in self.accepted and self.state(id) not in FINAL:
                yield Violation(1, id, f"its enqueue is unknown, but it is there, and stuck as {self.state(id)}")

    def rule_2(self) -> Iterator[Violation]:
        for id in self.of:
            record = self.final.records.get(id, {})
            asked = {(event.agent, event.attempt): event for event in self.said(id, "settle", "invoke")}
            won = {
                (event.agent, event.attempt)
                for event in self.said(id, "settle", "ok")
                if ENDS.get(self.verb(asked, event))
            }
            if len(won) > 1 + self.replays(id):
                self.twice.append(id)
                yield Violation(2, id, f"settled twice: {sorted(won)} were told `ok`")
            if not self.replays(id):
                yield from self.as_recorded(id, record, asked, won)
                for event in self.said(id, "result", "ok"):
                    told = (event.data["state"], plain(event.data.get("value")))
                    held = (record.get("state"), plain(record.get("result")))
                    if told[0] != held[0] or (told[0] == "succeeded" and told[1] != held[1]):
                        yield Violation(2, id, f"a client was told {told}, the record says {held}")

    def as_recorded(
        self, id: str, record: Any, asked: dict[tuple[str, int], Event], won: set[tuple[str, int]]
    ) -> Iterator[Violation]:
        state = record.get("state", "missing")
        owner = (record.get("agent", ""), int(record.get("attempt") or 0))
        for winner in won:
            said = asked[winner].data
            if ENDS[said["verb"]] != state or (state in ("succeeded", "failed") and winner != owner):
                yield Violation(2, id, f"{winner} was told `ok` for {said['verb']}, the record says {state} by {owner}")
            elif state == "succeeded" and plain(said["value"]) != plain(record.get("result")):
                yield Violation(2, id, f"{winner} said {said['value']}, the record says {record.get('result')}")
        if state not in FINAL or won:
            return
        event = asked.get(owner)
        mine = event is not None and ENDS.get(event.data["verb"]) == state
        if state not in WITHOUT_AGENT and not mine:
            yield Violation(2, id, f"{state} by {owner}, who never said so")
        elif state == "cancelled" and not mine and not self.said(id, "cancel", "invoke"):
            yield Violation(2, id, "cancelled, and nobody asked for it")
        elif mine and state not in WITHOUT_AGENT:
            answers = {
                one.phase for one in self.said(id, "settle", "fail", "info") if (one.agent, one.attempt) == owner
            }
            if answers == {"fail"}:
                yield Violation(2, id, f"{owner} was told `stale`, but its outcome is the recorded one")

    def verb(self, asked: dict[tuple[str, int], Event], event: Event) -> str:
        call = asked.get((event.agent, event.attempt))
        return str(call.data["verb"]) if call else ""

    def rule_3(self) -> Iterator[Violation]:
        for id in self.of:
            starts = self.said(id, "start", "ok")
            for attempt, count in Counter(event.attempt for event in starts).items():
                if count > 1:
                    who = [event.agent for event in starts if event.attempt == attempt]
                    yield Violation(3, id, f"attempt {attempt} was given out {count} times, to {' and '.join(who)}")
            highest = int(self.final.records.get(id, {}).get("attempt") or 0)
            beyond = [event.attempt for event in starts if event.attempt > highest]
            if beyond and id in self.final.records:
                yield Violation(3, id, f"attempt {max(beyond)} was started, the record knows only {highest}")
            timed = sorted((event for event in starts if event.redis), key=lambda event: event.redis or 0)
            for one, two in pairwise(timed):
                if two.attempt < one.attempt and not self.late(one, two):
                    yield Violation(3, id, f"attempt {two.attempt} was claimed after attempt {one.attempt}")
            for settled in self.said(id, "settle", "ok"):
                for start in starts:
                    if start.attempt <= settled.attempt and start.mono > settled.mono and not self.late(settled, start):
                        yield Violation(3, id, f"attempt {start.attempt} started after {settled.attempt} was settled")

    def late(self, before: Event, start: Event) -> bool:
        """Whether the process that starts so late can have been stalled since it claimed."""
        return self.explained(STALLS, {start.process, start.agent}, before.mono - self.grace, start.mono)

    def rule_4(self) -> Iterator[Violation]:
        for id in self.of:
            starts = self.said(id, "start", "ok")
            done = {(one.agent, one.attempt) for one in self.executed.get(id, ())}
            noted = {(event.agent, event.attempt) for event in starts}
            if self.state(id) == "succeeded" and not (done if self.kept_ledger else noted):
                yield Violation(4, id, "succeeded, and nobody executed it")
            for who in noted ^ done if self.kept_ledger else ():
                # a process killed between its two notes has left only one of them
                if not self.explained(KILLS, {who[0], *self.names(id, who[0])}, 0.0, float("inf")):
                    yield Violation(4, id, f"{who} is in the {'ledger' if who in done else 'history'} alone")
            if self.effects is not None and self.state(id) == "succeeded" and self.effects.get(id, 0) != 1:
                yield Violation(4, id, f"succeeded, and its effect was applied {self.effects.get(id, 0)} times")
            for one, two in pairwise(starts):
                if not self.reason(id, one, two):
                    yield Violation(4, id, f"attempt {two.attempt} by {two.agent} has no reason after {one.attempt}")

    def names(self, id: str, agent: str) -> set[str]:
        return {event.process for event in self.of[id] if event.agent == agent}

    def reason(self, id: str, one: Event, two: Event) -> bool:
        wanted = [
            event for event in self.said(id, "settle", "invoke")
            if event.data["verb"] in AGAIN and event.attempt == one.attempt and event.mono <= two.mono
        ]  # fmt: skip
        names = {one.process, one.agent, two.process, two.agent}
        return bool(wanted) or bool(self.replays(id)) or self.explained(KILLS | STALLS, names, one.mono, two.mono)

    def rule_5(self) -> Iterator[Violation]:
        final = self.final
        at = {(stream, entry): id for stream, entry, id in final.entries}
        named = [(id, entry, f"entry {entry} of {stream}") for stream, entry, id in final.entries]
        named += [
            (at.get((stream, entry), ""), entry, f"{entry} of {stream}, pending with {consumer}")
            for stream, entry, consumer in final.pending
        ]
        for id, entry, where in named:
            record = final.records.get(id, {})
            if record.get("state") not in ("queued", "running"):
                yield Violation(5, id, f"{where} is left over; the record is {record.get('state', 'missing')}")
            elif record.get("entry") != entry:
                yield Violation(5, id, f"{where} is not the entry of its record, {record.get('entry')}")
        due = [member.removeprefix("task:") for member in final.due]
        for id in due:
            if self.state(id) != "delayed":
                yield Violation(5, id, f"it is due, and {self.state(id)}")
        letters = Counter(id for _, id in final.letters)
        entries = {(id, entry) for (_, entry), id in at.items()}
        for id, record in final.records.items():
            state = record.get("state")
            if state in ("queued", "running") and (id, record.get("entry")) not in entries:
                yield Violation(5, id, f"{state}, and its entry {record.get('entry')} is not there")
            if state == "delayed" and id not in due:
                yield Violation(5, id, "delayed, and not due")
            if letters[id] != (1 if state == "dead" else 0):
                yield Violation(5, id, f"{state}, with {letters[id]} dead letters")

    def rule_7(self) -> Iterator[Violation]:
        for key, ttl in self.final.ttls.items():
            name = key.partition("}:")[2]
            is_open = name.startswith("task:") and self.state(name.removeprefix("task:")) not in FINAL
            if ttl is None and not is_open and not LASTING.match(name):
                yield Violation(7, "", f"{key} has no time to live")

    def rule_8(self) -> Iterator[Violation]:
        last: dict[tuple[str, str], tuple[int, ...]] = {}
        for event in sorted((event for id in self.of for event in self.said(id, "start", "ok")), key=lambda e: e.mono):
            if "entry" in event.data and event.attempt == 1:
                at = (event.process, str(event.data["stream"]))
                entry = tuple(int(part) for part in str(event.data["entry"]).split("-"))
                if entry < last.get(at, ()):
                    yield Violation(8, event.id, f"entry {event.data['entry']} was delivered after {last[at]}")
                last[at] = entry

    def rule_9(self) -> Iterator[Violation]:
        for id in self.of:
            due = [event.data["due"] for event in self.said(id, "enqueue", "invoke") if event.data.get("due")]
            for start in self.said(id, "start", "ok"):
                if due and start.redis and start.redis < min(due):
                    yield Violation(9, id, f"started {min(due) - start.redis} ms before it was due")

    def rule_10(self) -> Iterator[Violation]:
        for id in self.of:
            spans = [(start, self.end(start)) for start in self.said(id, "start", "ok")]
            for at, (one, ended) in enumerate(spans):
                for two, _ in spans[at + 1 :]:
                    names = {one.process, one.agent, two.process, two.agent}
                    if two.mono < ended and not self.explained(STALLS, names, one.mono - self.grace, two.mono):
                        yield Violation(10, id, f"attempts {one.attempt} and {two.attempt} overlap, and nobody stalled")

    def end(self, start: Event) -> float:
        """When an execution was over: it said so, or its process was killed; for ever if neither is known."""
        for event in self.said(start.id, "end", "ok"):
            if (event.agent, event.attempt) == (start.agent, start.attempt):
                return event.mono
        killed = [
            float(fault.data["begun"]) for fault in self.faults
            if fault.data["kind"] in KILLS and fault.data["target"] in (start.process, start.agent)
        ]  # fmt: skip
        return min((mono for mono in killed if mono >= start.mono), default=float("inf"))


def plain(value: Any) -> Any:
    """A JSON text as the value that it stands for."""
    try:
        return json.loads(value) if isinstance(value, str | bytes) else value
    except ValueError:
        return value
