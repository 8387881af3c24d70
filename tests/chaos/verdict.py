"""The judgement on a chaos run: what `checker.py` says, and what only the driver can know of its own load.

Every line in ``Outcome.violations`` is a promise that was broken; figures beside it (executed again, stale, told late) are
not broken promises but the price of the faults.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.chaos.checker import Report, check
from tests.chaos.history import Event, Execution, Final
from tests.chaos.load import Item
from tests.chaos.victim import AGAIN

__all__ = ["FINAL", "Outcome", "Played", "judge"]

#: Violations in a report.
SHOWN = 12
FINAL = frozenset({"succeeded", "failed", "cancelled", "dead", "expired"})


@dataclass(frozen=True, slots=True)
class Played:
    """What the driver did and saw. ``faults`` by kind as they were done, ``left`` work that lay in streams at the end."""

    folder: Path
    seed: int
    faults: Mapping[str, int]
    agents: int
    slots: int
    lease: float
    seconds: float
    settled_in: float | None
    surprises: Sequence[str]
    left: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    played: Played
    report: Report
    #: Broken promises, in words.
    violations: tuple[str, ...]
    #: Executions that no handler asked for, and how many the faults can explain.
    repeated: int
    limit: int
    #: The longest wait, in seconds, from a task's end to the one who waited for it.
    latest_answer: float
    #: Why tasks are dead.
    reasons: Mapping[str, int]

    def text(self) -> str:
        """The report, to be read."""
        played, report = self.played, self.report

        def counts(of: Mapping[str, int]) -> str:
            return ", ".join(f"{count} {name}" for name, count in sorted(of.items(), key=lambda one: -one[1]))

        settled = (
            "NOT SETTLED" if played.settled_in is None else f"settled {played.settled_in:.1f} s after the last fault"
        )
        lines = [
            f"seed {played.seed}: {report.accepted} tasks, {sum(played.faults.values())} faults, {played.agents} agent processes, {played.seconds:.1f} s",
            f"  faults      {counts(played.faults)}",
            f"  states      {counts(report.states)}; {settled}",
            f"  dead of     {counts(self.reasons) or 'nothing'}",
            f"  executions  {report.executions}, {self.repeated} repeated because of faults (at most {self.limit} allowed); {report.stale} settlements refused",
            f"  answers     at most {self.latest_answer:.2f} s after the task's end",
            f"  lost {len(report.lost)}, settled twice {len(report.settled_twice)}, violations {len(self.violations)}",
            f"  histories   {played.folder}",
        ]
        for number, violation in enumerate(self.violations[:SHOWN], 1):
            first, *rest = violation.splitlines()
            lines += [f"  {number:>3}. {first}", *(f"         {line}" for line in rest)]
        if len(self.violations) > SHOWN:
            lines.append(f"  and {len(self.violations) - SHOWN} more")
        return "\n".join(lines)


def judge(
    played: Played, items: list[Item], events: Sequence[Event], final: Final, executions: Sequence[Execution],
    effects: Sequence[tuple[Execution, str]],
) -> Outcome:  # fmt: skip
    """Compare everything with everything."""
    report = check(events, final, executions, grace=4 * played.lease)
    court = _Court(items, events, final, effects)
    repeated, limit = court.repeated(), sum(played.faults.values()) * played.slots
    violations = [
        "\n".join((str(one), *report.timelines.get(one.id, ()), str(dict(final.records.get(one.id, {})))))
        for one in report.violations
    ]
    violations += [*court.outcomes(), *court.verdicts(), *court.results(), *court.retries(), *played.surprises]
    violations += [f"left over: {one}" for one in played.left]
    if played.settled_in is None:
        violations.append("not everything was settled in time")
    for key in final.ttls:
        if key.partition("}:")[2].startswith(("agent:", "inbox:", "mail:")) or key.endswith((":agents", ":inboxes")):
            violations.append(f"{key} outlived the last agent")
    if repeated > limit:
        violations.append(f"{repeated} executions were repeated, faults explain {limit} at most")
    return Outcome(played, report, tuple(violations), repeated, limit, court.latest_answer(), court.reasons())


class _Court:
    """What the load asked for, against what became of it."""

    def __init__(
        self, items: list[Item], events: Sequence[Event], final: Final, effects: Sequence[tuple[Execution, str]]
    ) -> None:
        self._items = {item.id: item for item in items}
        self._records = final.records
        self._of: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in events:
            self._of[event.op, event.id].append(event)
        self._effects: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for execution, token in effects:
            self._effects[execution.id].append((execution.attempt, token))

    def _said(self, op: str, id: str) -> Sequence[Event]:
        return self._of.get((op, id), ())

    def outcomes(self) -> Iterator[str]:
        """Every task ended as it may."""
        for id, record in self._records.items():
            state = record.get("state", "missing")
            item = self._items.get(id)
            # A child inherits the deadline of the task that made it.
            parent = self._items.get(id.removesuffix(".child"))
            inherited = {"expired"} if parent and "deadline" in parent.options else set()
            expected = item.outcomes if item else {"succeeded", "dead"} | inherited
            if state in FINAL and state not in expected:
                yield f"{id}: ended as {state}, expected one of {sorted(expected)}: {dict(record)}"
            doomed = item is not None and item.capability == "doomed"
            if state == "dead" and not doomed and record.get("reason") not in ("poison", "agent_died"):
                yield f"{id}: dead for the reason {record.get('reason')}: {record.get('error')}"
            if item and item.capability == "chain" and state == "succeeded" and f"{id}.child" not in self._records:
                yield f"{id}: succeeded, and its child is not there"
            if state in FINAL and "finished_at" not in record:
                yield f"{id}: {state} without finished_at: {dict(record)}"

    def verdicts(self) -> Iterator[str]:
        """Who enqueued another payload was told of the conflict, nobody else; who cancelled was told the truth."""
        for (op, id), events in self._of.items():
            state = self._records.get(id, {}).get("state", "missing")
            if op == "enqueue":
                for asked, told in _calls(events):
                    if told.phase == "ok" and asked.data.get("other"):
                        yield f"{id}: another payload for a known id was taken"
                    if told.phase == "fail" and told.data.get("conflict") and not asked.data.get("other"):
                        yield f"{id}: the same payload was called a conflict"
            elif op == "cancel":
                for told in events:
                    word = told.data.get("word", "")
                    if (word == "ok" and state != "cancelled") or word == "missing":
                        yield f"{id}: cancel answered {word!r}, and it ended as {state}"

    def results(self) -> Iterator[str]:
        """A result is of the attempt in the record, and that attempt had its effect, once; who waited was told."""
        for id, record in self._records.items():
            if record.get("state") == "succeeded":
                result = json.loads(record.get("result", "null"))
                tokens = [token for attempt, token in self._effects[id] if attempt == result["attempt"]]
                if tokens != [result["token"]] or str(result["attempt"]) != record.get("attempt"):
                    yield f"{id}: its result is {result}, its effects {self._effects[id]}, its record {dict(record)}"
        for id, item in self._items.items():
            if item.waits and id in self._records and not any(one.phase == "ok" for one in self._said("result", id)):
                yield f"{id}: nobody told the one who waited"

    def retries(self) -> Iterator[str]:
        """Nobody who raised Retry(after=) is begun again sooner."""
        for id in self._items:
            started = {event.attempt: event.mono for event in self._said("start", id)}
            asked = {event.attempt: event for event in self._said("settle", id) if event.phase == "invoke"}
            for told in self._said("settle", id):
                verb = asked[told.attempt].data["verb"] if told.attempt in asked else ""
                following = started.get(told.attempt + 1)
                if told.phase == "ok" and verb == "again" and following:
                    waited = following - asked[told.attempt].mono
                    if waited < AGAIN - 0.005:
                        yield f"{id}: attempt {told.attempt + 1} began {waited:.3f} s after Retry(after={AGAIN})"

    def reasons(self) -> Mapping[str, int]:
        return Counter(one.get("reason", "") for one in self._records.values() if one.get("state") == "dead")

    def repeated(self) -> int:
        """Executions whose outcome does not count: their agent died, or somebody else had taken over."""
        count = 0
        for (op, id), starts in self._of.items():
            if op == "start":
                counted = {event.attempt for event in self._said("settle", id) if event.phase == "ok"}
                count += sum(event.attempt not in counted for event in starts)
        return count

    def latest_answer(self) -> float:
        latest = 0.0
        offset = None
        for (op, _), events in self._of.items():
            if op == "start" and events[0].redis:
                offset = events[0].redis / 1000 - events[0].mono
                break
        for id in self._items:
            for told in self._said("result", id):
                finished = self._records.get(id, {}).get("finished_at")
                if told.phase == "ok" and finished and offset is not None:
                    latest = max(latest, told.mono + offset - datetime.fromisoformat(finished).timestamp())
        return latest


def _calls(events: Sequence[Event]) -> Iterator[tuple[Event, Event]]:
    """Pairs of request and answer; calls of one process for one id may overlap, then they are told apart by nothing but order."""
    waiting: list[Event] = []
    for event in events:
        if event.phase == "invoke":
            waiting.append(event)
        elif waiting:
            yield waiting.pop(0), event
