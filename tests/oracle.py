"""What one stream of tasks does, in a hundred lines of Python: the answer that `test_machine` expects of the scripts.

Entries are known by their order in the stream; their ids come from the server and are filled in afterwards (`real`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

OPEN = ("queued", "delayed", "running")
ENDS = {"complete": "succeeded", "reject": "failed", "cancel": "cancelled", "expire": "expired", "dead": "dead"}
LEADS = ENDS | {"fail": "delayed", "again": "delayed", "release": "queued"}


@dataclass(eq=False)
class Entry:
    """`id` is '' for a raw one, `aged` that it was not touched for a lease, `late` that its deadline has passed."""

    id: str
    payload: str
    late: bool = False
    owner: str = ""
    aged: bool = False
    real: str = ""


@dataclass(eq=False)
class Letter:
    id: str
    payload: str
    real: str = ""


@dataclass(eq=False)
class Task:
    payload: str
    state: str = "queued"
    entry: Entry | None = None
    agent: str = ""
    attempt: int = 0
    failures: int = 0
    deaths: int = 0
    cancel: bool = False
    late: bool = False
    letter: Letter | None = None


@dataclass
class Oracle:
    raw_word: str
    tasks: dict[str, Task] = field(default_factory=dict)
    stream: list[Entry] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def of(self, agent: str) -> list[Entry]:
        return [entry for entry in self.stream if entry.owner == agent]

    def id_of(self, entry: Entry) -> str:
        return entry.id or f"{self.raw_word}-{entry.real}"

    def put(self, id: str) -> None:
        task = self.tasks[id]
        task.state, task.entry = "queued", Entry(id, task.payload, task.late)
        self.stream.append(task.entry)

    def away(self, entry: Entry) -> None:
        if entry in self.stream:
            self.stream.remove(entry)

    def bury(self, id: str) -> None:
        task = self.tasks[id]
        task.state, task.letter = "dead", Letter(id, task.payload)
        self.letters.append(task.letter)

    # -- the scripts

    def enqueue(self, id: str, payload: str, *, later: bool, late: bool) -> str:
        known = self.tasks.get(id)
        if known:
            return f"{'duplicate' if known.payload == payload else 'conflict'} {known.state}"
        self.tasks[id] = Task(payload, late=late)
        if later:
            self.tasks[id].state = "delayed"
            self.due.append(id)
        else:
            self.put(id)
        return "ok"

    def read(self, me: str, count: int) -> list[Entry]:
        fresh = [entry for entry in self.stream if not entry.owner][:count]
        for entry in fresh:
            entry.owner = me
        return fresh

    def claim(
        self, me: str, count: int, given: Iterable[Entry], dead: Iterable[str]
    ) -> list[tuple[str, int, int, int]]:
        items: list[tuple[str, int, int, int]] = []
        for consumer in dead:
            for entry in [entry for entry in self.of(consumer) if entry.aged][: count - len(items)]:
                entry.owner, entry.aged = me, False
                items += self.take(me, entry, consumer)
        for entry in given:
            if entry in self.of(me):
                items += self.take(me, entry, "")
        for entry in self.read(me, max(0, count - len(items))):
            items += self.take(me, entry, "")
        return items

    def take(self, me: str, entry: Entry, dead: str) -> list[tuple[str, int, int, int]]:
        id = self.id_of(entry)
        task = self.tasks.setdefault(id, Task(entry.payload, entry=entry, late=entry.late))
        if task.state == "running" and task.entry is entry and task.agent != dead:
            return []
        if task.entry is not entry or task.state not in ("queued", "running"):
            self.away(entry)
            return []
        if task.cancel:
            task.state = "cancelled"
        elif task.state == "running":
            task.deaths += 1
            if task.deaths >= 3:
                self.bury(id)
                task.agent = ""
        if entry.late and task.state in OPEN:
            task.state = "expired"
        if task.state not in OPEN:
            self.away(entry)
            return []
        task.state, task.agent, task.attempt = "running", me, task.attempt + 1
        return [(id, task.attempt, task.failures, task.deaths)]

    def settle(self, me: str, id: str, entry: str, attempt: int, verb: str) -> str:
        task = self.tasks.get(id)
        if task is None or (task.agent, task.attempt) != (me, attempt):
            return "stale"
        released = verb == "release" and task.state == "queued"
        if task.entry is None or (task.entry.real != entry and not released):
            return "stale"
        given_up = task.cancel and verb not in ENDS
        if task.state != "running":
            return "ok" if task.state == LEADS[verb] or (given_up and task.state == "cancelled") else "stale"
        self.away(task.entry)
        task.state = "cancelled" if given_up else LEADS[verb]
        if task.state == "delayed":
            task.failures += verb == "fail"
            self.due.append(id)
        elif task.state == "queued":
            self.put(id)
        elif task.state == "dead":
            self.bury(id)
        return "ok"

    def renew(self, me: str, held: Iterable[tuple[str, str, int]]) -> tuple[list[str], list[str], int]:
        lost, cancel, ours = [], [], set()
        for entry, id, attempt in held:
            ours.add(entry)
            task = self.tasks.get(id)
            if task and task.entry and (task.state, task.agent, task.attempt) == ("running", me, attempt):
                cancel += [id] if task.cancel else []
                for one in self.stream:
                    if one.real == entry:
                        one.owner, one.aged = me, False
            else:
                lost.append(f"{id} {attempt}")
        strays = [entry for entry in self.of(me) if entry.aged and entry.real not in ours]
        for stray in strays:
            known = self.tasks.get(self.id_of(stray))
            if known is None:
                self.stream.append(Entry(stray.id, stray.payload, stray.late))
            elif known.entry is stray and known.state in OPEN:
                self.put(self.id_of(stray))
            self.away(stray)
        return lost, cancel, len(strays)

    def fire(self, limit: int) -> int:
        fired, self.due = self.due[:limit], self.due[limit:]
        for id in fired:
            self.put(id)
        return len(fired)

    def cancel(self, id: str) -> str:
        task = self.tasks.get(id)
        if task is None:
            return "missing"
        if task.state == "running":
            task.cancel = True
            return f"running {task.agent}"
        if task.state not in OPEN:
            return f"closed {task.state}"
        if task.state == "delayed":
            self.due.remove(id)
        elif task.entry:
            self.away(task.entry)
        task.state = "cancelled"
        return "ok"

    def retry(self, id: str, letter: Letter | None = None) -> str:
        if letter and letter not in self.letters:
            return "missing"
        task = self.tasks.get(id) or (letter and self.tasks.setdefault(id, Task(letter.payload, "dead")))
        if not task:
            return "missing"
        if task.state in OPEN:
            return f"open {task.state}"
        self.letters = [one for one in self.letters if one not in (task.letter, letter)]
        task.failures = task.deaths = 0
        task.cancel, task.late, task.letter = False, False, None
        self.put(id)
        return f"ok {id}"
