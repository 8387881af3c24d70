"""The scripts of runs under readable names: workflow `w`, agents `ann.1` and `bob.2`, one run after another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.lua.shard import KEEP, LEASE, POISON, Shard

CLIENT = "c-1"


@dataclass(frozen=True)
class Taken:
    """A wake-up that was claimed."""

    entry: str
    id: str
    attempt: int
    deaths: int
    journal: list[str]


@dataclass(frozen=True)
class Doing:
    """One item of a commit; `seen` counts the records that its execution knows (-1: all that are there)."""

    of: Taken
    then: str = "continue"
    value: str = ""
    records: Sequence[dict[str, Any]] = ()
    effects: Sequence[tuple[Any, ...]] = ()
    seen: int = -1
    number: str = "1"
    attempt: int = field(default=0)


class Runs:
    """The runs of one shard."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def start(
        self, id: str = "r", *, policy: str = "attach", signals: Sequence[str] = (), version: int = 1, workflow: str = "w",
        input: str = "{}", **pairs: str,
    ) -> str:  # fmt: skip
        records = [json.dumps({"what": "signal", "name": name, "payload": None}) for name in signals]
        flat = [word for pair in pairs.items() for word in pair]
        args = [1, id, workflow, version, input, policy, len(records), *records, len(flat) // 2, *flat]
        return str(self.shard.run("run_start", *args)[0])

    def claim(
        self, agent: str = "ann.1", count: int = 10, *, stream: str = "runs:w", dead: str = "", given: Sequence[str] = ()
    ) -> list[Taken]:  # fmt: skip
        args: list[Any] = [agent, count, LEASE, KEEP, POISON, len(given)]
        for entry in given:
            args += (2, entry)
        args += (1, 2, dead) if dead else (0,)
        args += (f"run {CLIENT} {stream.removeprefix('runs:')}", self.shard.raw_word(stream))
        items, self.skipped = self.shard.run("task_claim", *args, streams=[stream])
        return [
            Taken(entry, id[4:], attempt, deaths, list(journal)) for _, entry, id, attempt, _, deaths, journal in items
        ]

    def take(self, agent: str = "ann.1", **options: Any) -> Taken:
        (only,) = self.claim(agent, **options)
        return only

    def running(self, id: str = "r", agent: str = "ann.1", **options: Any) -> Taken:
        assert self.start(id, **options) == "ok"
        return self.take(agent)

    def commit(self, *items: Doing, agent: str = "ann.1") -> list[list[str]]:
        streams: list[str] = []
        args: list[Any] = [agent, len(items)]
        for one in items:
            journal = self.journal_texts(one.of.id)
            seen = len(journal) if one.seen < 0 else one.seen
            last = journal[seen - 1][-40:] if 0 < seen <= len(journal) else "?"
            args += (one.of.id, one.attempt or one.of.attempt, one.number, seen, last, one.then, one.value, KEEP)
            args += (len(one.records), *map(json.dumps, one.records), len(one.effects))
            for verb, path, *rest in one.effects:
                if verb == "task":
                    if rest[0] not in streams:
                        streams.append(rest[0])
                    rest[0] = streams.index(rest[0]) + 2
                args += (verb, path, len(rest), *rest)
        return [list(words) for words in self.shard.run("run_commit", *args, streams=streams)]

    def do(self, of: Taken, then: str = "continue", value: str = "", agent: str = "ann.1", **options: Any) -> str:
        """A commit of one item: its word."""
        return self.commit(Doing(of, then, value, **options), agent=agent)[0][0]

    def parked(self, id: str = "r", *effects: tuple[Any, ...], **options: Any) -> Taken:
        """A run that has asked for something and is parked."""
        one = self.running(id, **options)
        assert self.do(one, effects=effects, number="1") == "ok"
        assert self.do(one, "park", number="2") == "ok"
        return one

    def signal(self, name: str = "go", id: str = "r", *, unique: str = "", payload: str = "1") -> str:
        return str(self.shard.run("run_deliver", id, "signal", name, payload, unique))

    def cancel(self, id: str = "r") -> str:
        return str(self.shard.run("run_deliver", id, "cancel", "tests", "null", ""))

    def act(self, verb: str, id: str = "r") -> str:
        return str(self.shard.run("run_act", id, verb, "tests", KEEP))

    def release(self, of: Taken, agent: str = "ann.1") -> str:
        args = [agent, 1, 2, of.entry, f"run {of.id}", of.attempt, "release", "", "", ""]
        return str(self.shard.run("task_settle", *args, streams=["runs:w"])[0])

    def renew(self, *held: Taken, agent: str = "ann.1", idle: int = LEASE // 2) -> tuple[list[str], int]:
        """(lost, strays handed back)"""
        args: list[Any] = [agent, idle, len(held)]
        for one in held:
            args += (2, one.entry, f"run {one.id}", one.attempt)
        args.append(f"run {self.shard.raw_word('runs:w')}")
        lost, _, strays = self.shard.run("task_renew", *args, streams=["runs:w"])
        return list(lost), int(strays)

    # -- what is there

    def head(self, id: str = "r") -> dict[str, str]:
        return dict(self.shard.redis.hgetall(self.shard.key(f"run:{id}")))

    def state(self, id: str = "r") -> str:
        return self.head(id).get("state", "")

    def open(self, id: str = "r") -> dict[str, str]:
        return {name[5:]: value for name, value in self.head(id).items() if name.startswith("open ")}

    def journal_texts(self, id: str = "r") -> list[str]:
        return list(self.shard.redis.lrange(self.shard.key(f"run:{id}:journal"), 0, -1))

    def journal(self, id: str = "r") -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.journal_texts(id)]

    def told(self, id: str = "r") -> list[tuple[str, ...]]:
        """What came after the start: (what, name or path or state)."""
        return [
            (one["what"], one.get("of") or one.get("name") or one.get("state") or one.get("by", ""))
            for one in self.journal(id)[1:]
        ]

    def wakes(self, id: str = "r", stream: str = "runs:w") -> list[str]:
        """The wake-up entries of a run: one while it is queued or running, else none."""
        found = [entry for entry, fields in self.shard.entries(stream).items() if fields.get("id") == id]
        state = self.state(id)
        assert len(found) == (state in ("queued", "running")), f"{state}, and wake-ups {found}"
        if found:
            assert self.head(id)["entry"] == found[0]
        return found


def task(id: str = "r:x.0", path: str = "x.0", payload: str = "{}", *pairs: str) -> tuple[Any, ...]:
    return ("task", path, "tasks:x", "x", id, payload, "", *pairs)


def timer(due: int = 1, path: str = "timer.0") -> tuple[Any, ...]:
    return ("timer", path, due)


def child(id: str = "r:k.0", path: str = "k.0", close: str = "cancel", workflow: str = "k") -> tuple[Any, ...]:
    return ("child", path, id, workflow, 1, "{}", close)
