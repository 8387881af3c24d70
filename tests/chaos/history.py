"""What happened in a chaos run, written down by everybody who took part, and what Redis held at the end.

Each process appends JSON lines to a file of its own, one `write` a line with O_APPEND: what was written survives its
SIGKILL. Before a call it writes `invoke`; after it `ok`, `fail` (surely not done) or `info` (nobody knows). Every line
has the monotonic clock of the machine, by which the files are merged, and where it is known the clock of Redis.

    recorder = Recorder(folder, "client-1")
    with recorder.call("enqueue", "doc-17") as call:             # an error in here writes `info`, and goes on
        task = await mesh.enqueue("echo", {"n": 17}, id="doc-17")
        call.ok(created=task.created)
    recorder.start("doc-17", attempt=1, agent="echo.3")          # in the handler; an execution is (task, attempt, agent)
    recorder.end("doc-17", attempt=1, agent="echo.3")            # in a `finally`
    recorder.settling("doc-17", 1, "echo.3", "complete", "17")   # around tasks.settle, verbs and words of task_settle
    recorder.settled("doc-17", 1, "echo.3", "ok")                # 'ok', 'stale', or '' when the call failed
    recorder.fault("pause", "echo.3", begun, ended)              # by the driver; `EVERYBODY` when nobody was spared

`checker.py` judges what `read_history`, `read_final` and `Ledger.read` return.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERYBODY = "*"
KILLS = frozenset({"kill"})  # an agent is gone for good: explains a second execution, but no overlap
#: Faults after which two attempts of a task may overlap: somebody alive could not be heard for a while.
STALLS = frozenset({"pause", "cut", "server_kill", "server_pause", "clock"})
HARMLESS = frozenset({"script_flush", "server_full", "capability_pause"})  # explain nothing


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `mono` in seconds; `redis` in ms since 1970; `phase`: invoke, ok, fail or info."""

    mono: float
    process: str
    op: str
    phase: str
    id: str = ""
    redis: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        return int(self.data.get("attempt", 0))

    @property
    def agent(self) -> str:
        return str(self.data.get("agent", ""))

    def __str__(self) -> str:
        said = " ".join(f"{name}={value}" for name, value in self.data.items())
        return f"{self.mono:.3f} {self.process}: {self.op} {self.phase} {self.id} {said}".rstrip()


class Recorder:
    """Appends the events of one process. Threads may share it; a forked child needs its own."""

    def __init__(self, folder: Path, process: str) -> None:
        self.process = process
        self._file = os.open(folder / f"{process}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, op: str, phase: str, id: str = "", redis: int | None = None, **data: Any) -> None:
        """Write one event, now."""
        line = {"mono": time.monotonic(), "process": self.process, "op": op, "phase": phase, "id": id, "redis": redis}
        os.write(self._file, (json.dumps(line | {"data": data}) + "\n").encode())

    @contextmanager
    def call(self, op: str, id: str, **data: Any) -> Iterator[Call]:
        """A call to the mesh: `invoke` now, then what `Call` is told, `info` if it is told nothing."""
        self.write(op, "invoke", id, **data)
        call = Call(self, op, id)
        try:
            yield call
        finally:
            call.info()

    def start(self, id: str, attempt: int, agent: str, redis: int | None = None, **data: Any) -> None:
        """A handler begins. Optional: `redis`, the time of the claim; `stream` and `entry`, for the order of delivery."""
        self.write("start", "ok", id, redis, attempt=attempt, agent=agent, **data)

    def end(self, id: str, attempt: int, agent: str) -> None:
        self.write("end", "ok", id, attempt=attempt, agent=agent)

    def settling(self, id: str, attempt: int, agent: str, verb: str, value: Any = None) -> None:
        self.write("settle", "invoke", id, attempt=attempt, agent=agent, verb=verb, value=value)

    def settled(self, id: str, attempt: int, agent: str, word: str) -> None:
        phase = {"ok": "ok", "": "info"}.get(word, "fail")
        self.write("settle", phase, id, attempt=attempt, agent=agent, word=word)

    def fault(self, kind: str, target: str, begun: float, ended: float | None = None) -> None:
        """Something was done to `target` (the name of a process or agent, or EVERYBODY); monotonic seconds."""
        if kind not in KILLS | STALLS | HARMLESS:
            raise ValueError(f"unknown kind of fault: {kind}")
        self.write("fault", "ok", "", kind=kind, target=target, begun=begun, ended=begun if ended is None else ended)

    def close(self) -> None:
        os.close(self._file)


class Call:
    """How a call went; the first word counts."""

    def __init__(self, recorder: Recorder, op: str, id: str) -> None:
        self._say = recorder.write
        self._op = op
        self._id = id
        self._said = False

    def ok(self, **data: Any) -> None:
        self._once("ok", data)

    def fail(self, **data: Any) -> None:
        """It was surely not done (refused)."""
        self._once("fail", data)

    def info(self, **data: Any) -> None:
        """Nobody knows whether it was done."""
        self._once("info", data)

    def _once(self, phase: str, data: Mapping[str, Any]) -> None:
        if not self._said:
            self._said = True
            self._say(self._op, phase, self._id, **data)


def read_history(folder: Path) -> list[Event]:
    """All events of all processes, in the order of the monotonic clock. A torn last line (full disk) is left out."""
    events = []
    for path in sorted(folder.glob("*.jsonl")):
        *lines, rest = path.read_bytes().split(b"\n")
        if rest.endswith(b"}"):
            lines.append(rest)
        events += [Event(**json.loads(line)) for line in lines if line]
    return sorted(events, key=lambda event: event.mono)


@dataclass(frozen=True, slots=True)
class Final:
    """What Redis held when the faults were over and the mesh had come to rest.

    `records`: task id -> fields. `entries`: (stream, entry, task id) of every work stream. `pending`: (stream, entry,
    consumer). `due`: members of the due sets. `letters`: (capability, task id) of each dead letter. `ttls`: key -> ms,
    None for a key that stays.
    """

    records: Mapping[str, Mapping[str, str]]
    entries: Sequence[tuple[str, str, str]] = ()
    pending: Sequence[tuple[str, str, str]] = ()
    due: Sequence[str] = ()
    letters: Sequence[tuple[str, str]] = ()
    ttls: Mapping[str, int | None] = field(default_factory=dict)


def read_final(client: Any, namespace: str, shards: int = 1) -> Final:
    """Read it with `client`, a plain `redis.Redis(decode_responses=True)`."""
    records: dict[str, dict[str, str]] = {}
    entries, pending, letters = [], [], []
    due: list[str] = []
    ttls: dict[str, int | None] = {}
    for shard in range(shards):
        prefix = f"{{{namespace}.{shard}}}:" if shard else f"{{{namespace}}}:"
        for key in sorted(client.scan_iter(f"{prefix}*", count=1000)):
            word, _, rest = key.removeprefix(prefix).partition(":")
            left = client.pttl(key)
            ttls[key] = left if left >= 0 else None
            if word == "task":
                records[rest] = client.hgetall(key)
            elif word == "due":
                due += client.zrange(key, 0, -1)
            elif word == "dead":
                letters += [(rest, fields.get("id", "")) for _, fields in client.xrange(key)]
            elif word in ("tasks", "inbox"):
                entries += [(key, entry, fields.get("id", "")) for entry, fields in client.xrange(key)]
                for group in client.xinfo_groups(key):
                    found = client.xpending_range(key, group["name"], "-", "+", 100_000)
                    pending += [(key, one["message_id"], one["consumer"]) for one in found]
    by_entry = {fields.get("entry", ""): id for id, fields in records.items()}
    named = [(stream, entry, id or by_entry.get(entry, "")) for stream, entry, id in entries]  # a raw entry has no id
    return Final(records, named, pending, due, letters, ttls)


class Ledger:
    """The outside world, on a server of its own that no fault touches: what handlers did, and not only what they said.

    `execute` in the handler, before anything else; `effect` is what the handler is for, made idempotent by the task's id.
    """

    def __init__(self, client: Any, name: str = "ledger") -> None:
        self._client = client
        self._name = name

    def execute(self, id: str, attempt: int, agent: str) -> int:
        """Note one execution; returns the clock of this server in ms, for `Recorder.start`."""
        seconds, micros = self._client.time()
        self._client.rpush(f"{self._name}:executions", json.dumps([id, attempt, agent]))
        return int(seconds) * 1000 + int(micros) // 1000

    def effect(self, id: str) -> bool:
        """Do the effect once; False when it was done before."""
        return bool(self._client.hsetnx(f"{self._name}:effects", id, 1))

    def read(self) -> list[Execution]:
        rows: Iterable[str] = self._client.lrange(f"{self._name}:executions", 0, -1)
        return [Execution(*json.loads(row)) for row in rows]

    def effects(self) -> dict[str, int]:
        return {id: int(count) for id, count in self._client.hgetall(f"{self._name}:effects").items()}


@dataclass(frozen=True, slots=True)
class Execution:
    """One row of the ledger."""

    id: str
    attempt: int
    agent: str
