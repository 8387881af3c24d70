"""What a run did, step by step, and what it waits for: its journal joined with the records of its tasks and children.

Read-only. The journal is the truth; what a task's record adds (agent, attempt) is there as long as the record is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from streammesh import codec
from streammesh.bids import LONGEST_ID
from streammesh.journal import Head, Journal
from streammesh.keys import Keys
from streammesh.records import is_told
from streammesh.store import Store
from streammesh.workflow import child_id

__all__ = ["RunSteps", "Step", "Steps", "Wait"]

_ENDS = frozenset(("succeeded", "failed", "cancelled"))
_FIELDS = ("state", "agent", "attempt", "enqueued_at", "started_at", "finished_at", "error")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a run's story, in journal order: a command, or a signal or cancellation that came (``path`` '').

    ``state``: for open commands that of their task, child or timer (queued, delayed, running, waiting …); else succeeded,
    failed, cancelled, fired, dropped (the run no longer wanted it), begun, received. ``began`` and ``ended`` in ms.
    """

    what: str
    name: str
    path: str
    state: str
    id: str = ""
    value: Any = None
    error: str = ""
    agent: str = ""
    attempt: int = 0
    began: float | None = None
    ended: float | None = None
    due: float | None = None

    @property
    def depth(self) -> int:
        """How many tasks of the workflow's tree lie above it: 0 in the workflow's own code, 1 in what `gather` began."""
        task, colon, _ = self.path.rpartition(":")
        return task.count(".") + 1 if colon else 0

    @property
    def seconds(self) -> float | None:
        return None if self.began is None or self.ended is None else max(0.0, (self.ended - self.began) / 1000)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a run waits for: a ``kind`` (signal, call, timer, child, step) of a ``name``, since (ms); ``due`` of a timer."""

    kind: str
    name: str
    since: float | None
    path: str = ""
    id: str = ""
    due: float | None = None


@dataclass(frozen=True, slots=True)
class RunSteps:
    """A run as a whole: head, journal, steps, and what it waits for (nothing, where it is running or has ended)."""

    head: Head
    records: Sequence[Mapping[str, Any]]
    steps: Sequence[Step]
    waits: Sequence[Wait]

    @property
    def input(self) -> Any:
        return self.records[0].get("input") if self.records else None

    @property
    def last(self) -> float | None:
        """When something last happened, in ms."""
        return max((at for record in self.records if (at := _ms(record.get("at"))) is not None), default=None)


class Steps:
    """Reads the runs of one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._journal = Journal(store, keys)

    async def read(self, id: str) -> RunSteps:
        """The run with everything it did. Raises RunNotFound."""
        head = await self._journal.head(id)
        records = await self._journal.history(id)
        steps = await self._join(head, _told(id, records, head))
        return RunSteps(head, records, steps, _waits(head, steps, records))

    async def _join(self, head: Head, steps: list[Step]) -> list[Step]:
        """The steps with what the records of their tasks and children say."""
        joined = list(steps)
        places = [number for number, step in enumerate(steps) if step.what in ("call", "child")]
        for start in range(0, len(places), 1000):
            some = places[start : start + 1000]
            keys = [
                self._keys.run(steps[n].id) if steps[n].what == "child" else self._keys.task(steps[n].id) for n in some
            ]
            replies = await self._store.commands([("HMGET", key, *_FIELDS) for key in keys])
            for number, reply in zip(some, replies, strict=True):
                if not isinstance(reply, Exception) and reply[0]:
                    said = {name: text for name, text in zip(_FIELDS, reply, strict=True) if text}
                    joined[number] = _with(steps[number], said, head)
        return joined


def _with(step: Step, said: Mapping[str, str], head: Head) -> Step:
    is_open = step.path in head.open
    return replace(
        step,
        state=said["state"] if is_open or (step.state == "dropped" and said["state"] != "succeeded") else step.state,
        agent=said.get("agent", ""),
        attempt=int(said.get("attempt", 0)),
        began=_ms(said.get("enqueued_at")) or _ms(said.get("started_at")) or step.began,
        ended=step.ended or (None if is_open else _ms(said.get("finished_at"))),
        error=step.error or said.get("error", ""),
    )


def _told(id: str, records: Sequence[Mapping[str, Any]], head: Head) -> list[Step]:
    """The steps as the journal alone tells them."""
    generation = records[0].get("generation", 0) if records else 0
    notes = [record for record in records[1:] if is_told(record)]
    times = [_ms(records[0].get("at")) if records else None, *(_ms(note.get("at")) for note in notes)]
    answers = {note["of"]: note for note in notes if note["what"] in ("done", "failed", "fired")}
    ended = {record["path"] for record in records if record["what"] == "step"}
    fork = records[0].get("fork") if records else None
    past = fork["records"] if fork else 0
    again = {path for record in records if record["what"] == "reissued" for path in record["paths"]}
    steps = []
    for place, record in enumerate(records[1:], 1):
        what = record["what"]
        at = _ms(record.get("at"))
        if what == "signal":
            steps.append(Step("signal", record["name"], "", "received", value=record["payload"], began=at))
        elif what == "cancel":
            steps.append(Step("cancel", f"by {record['by']}", "", "received", began=at))
        elif what == "step":
            failed = "error" in record
            began = _when(times, record["after"])
            steps.append(Step("step", record["name"], record["path"], "failed" if failed else "succeeded",
                              value=record.get("result"), error=record.get("error", ""), began=began, ended=at))  # fmt: skip
        elif what == "begin" and record["path"] not in ended:
            steps.append(Step("step", record["name"], record["path"], "begun", began=_when(times, record["after"])))
        elif what == "patched":
            steps.append(Step("patched", record["name"], "", "marked", began=_when(times, record["after"])))
        elif what in ("call", "timer", "child", "vote", "collect", "auction"):
            theirs = fork["of"] if fork and place < past and record["path"] not in again else ""
            of = ""
            if what in ("call", "vote", "collect"):
                of = child_id(theirs or id, record["path"], generation)
            elif what == "auction":
                of = child_id(theirs or id, record["path"], generation, LONGEST_ID)
            elif what == "child":
                of = (
                    record["run"]
                    if theirs or not fork
                    else id + record["run"].removeprefix(fork["of"] if place < past else id)
                )
            steps.append(_answered(of, record, answers.get(record["path"]), head, _when(times, record["after"])))
    return steps


def _answered(
    id: str, record: Mapping[str, Any], answer: Mapping[str, Any] | None, head: Head, began: float | None
) -> Step:
    what, path = record["what"], record["path"]

    step = Step(what, "sleep" if what == "timer" else record["name"], path, "dropped", id=id, began=began, due=record.get("due"))  # fmt: skip
    if answer is None:
        if path not in head.open:
            return step
        # A fork's timer has the time that was left of it when the fork was made.
        due = int(head.open[path].rpartition(" ")[2]) if what == "timer" else None
        return replace(step, state="waiting", due=due)
    if answer["what"] == "fired":
        return replace(step, state="fired", ended=_ms(answer["at"]))
    if answer["what"] == "done":
        return replace(step, state="succeeded", value=answer["result"], ended=_ms(answer["at"]))
    return replace(step, state=answer["state"], error=answer.get("error", ""), ended=_ms(answer["at"]))


def _waits(head: Head, steps: Sequence[Step], records: Sequence[Mapping[str, Any]]) -> list[Wait]:
    """What a run that does not run now would go on with; signals first."""
    if head.state in _ENDS:
        return []
    since = max((at for record in records if (at := _ms(record.get("at"))) is not None), default=None)
    waits = []
    if head.state == "parked" and "waits" in head.fields:
        names = codec.decode(head.fields["waits"], what="names of signals")
        waits = [Wait("signal", str(name), since) for name in names]
    waits += [
        Wait(step.what, step.name, step.began, step.path, step.id, step.due)
        for step in steps
        if step.path and step.path in head.open
    ]
    return waits


def _when(times: Sequence[float | None], after: int) -> float | None:
    return times[after] if 0 <= after < len(times) else None


def _ms(text: Any) -> float | None:
    """ms since 1970 of ISO text."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp() * 1000
    except ValueError:
        return None
