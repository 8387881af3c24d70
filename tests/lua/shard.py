"""One shard of a mesh on a real server, and its scripts under readable names.

What a script takes and returns is said in its own header; here only the flat lists of the wire become names. Streams are
named without the prefix (`tasks:x`), capability `x` is meant where none is named.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from streammesh.keys import GROUP, Keys, raw_tag
from streammesh.store import Store, ThreadLink

#: Of every agent in these tests, in ms. Nothing waits for it: time is made by commands (`Shard.age`).
LEASE = 10_000
KEEP = 60_000
POISON = 3
LONG_AGO = 999_999
FAR = 10**14


@dataclass(frozen=True)
class New:
    """A task to be enqueued. `extra` are pairs for the record: deadline, waiters, header.x …"""

    id: str
    payload: str = "{}"
    capability: str = "x"
    when: str = ""
    priority: str = ""
    to: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        if self.to:
            return f"inbox:{self.to}"
        return f"tasks:{self.capability}" + (f":{self.priority}" if self.priority else "")

    @property
    def pairs(self) -> dict[str, str]:
        named = {"priority": self.priority, "to": self.to}
        return {**self.extra, **{name: value for name, value in named.items() if value}}


@dataclass(frozen=True)
class Claimed:
    """One item of a claim."""

    stream: str
    entry: str
    id: str
    attempt: int
    failures: int
    deaths: int
    fields: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """One item of a settlement."""

    of: Claimed
    verb: str
    a: Any = ""
    b: Any = ""
    c: Any = ""


def complete(of: Claimed, result: str = "1", keep: int = KEEP) -> Outcome:
    return Outcome(of, "complete", result, keep)


def fail(of: Claimed, error: str = "boom", wait: int = 5000, detail: str = "") -> Outcome:
    return Outcome(of, "fail", error, wait, detail)


def again(of: Claimed, reason: str = "not yet", wait: int = 5000) -> Outcome:
    return Outcome(of, "again", reason, wait)


def dead(of: Claimed, error: str = "boom", reason: str = "attempts", detail: str = "") -> Outcome:
    return Outcome(of, "dead", error, reason, detail)


def reject(of: Claimed, reason: str = "no", keep: int = KEEP) -> Outcome:
    return Outcome(of, "reject", reason, keep)


def cancelled(of: Claimed, why: str = "cancelled while running", keep: int = KEEP) -> Outcome:
    return Outcome(of, "cancel", why, keep)


def expire(of: Claimed, why: str = "too late", keep: int = KEEP) -> Outcome:
    return Outcome(of, "expire", why, keep)


def release(of: Claimed) -> Outcome:
    return Outcome(of, "release")


def delegate(of: Claimed, to: str = "", why: str = "no") -> Outcome:
    return Outcome(of, "delegate", why, to)


def ack(of: Claimed, said: str = "replied null", client: str = "") -> Outcome:
    return Outcome(of, "ack", of.fields.get("id", ""), client, said)


class Shard:
    """Shard 0 of the mesh `namespace` at `url`. Close it."""

    def __init__(self, url: str, namespace: str) -> None:
        self.keys = Keys(namespace)
        self.prefix = self.keys.prefix()
        self.redis: Any = redis.Redis.from_url(url, decode_responses=True, protocol=2)
        self._store = Store(url, name="tests")
        self._link = ThreadLink(self._store, "lua")
        #: What the last claim took away because nobody wants it.
        self.skipped = 0
        #: Whose work moves at once, by the last agent_expire.
        self.vanished: list[str] = []

    def close(self) -> None:
        self._link.close()
        self.redis.close()

    def run(self, name: str, *args: Any, streams: Sequence[str] = ()) -> Any:
        """Any script, as it is."""
        return self._link.run(name, [self.prefix, *(self.prefix + stream for stream in streams)], args)

    def key(self, word: str) -> str:
        return self.prefix + word

    # -- the scripts

    def enqueue(self, *tasks: New) -> list[str]:
        streams = sorted({task.stream for task in tasks})
        args: list[Any] = [len(tasks)]
        for task in tasks:
            args += (streams.index(task.stream) + 2, task.capability, task.id, task.payload, task.when, len(task.pairs))
            for pair in task.pairs.items():
                args += pair
        return list(self.run("task_enqueue", *args, streams=streams))

    def new(self, id: str = "a", **options: Any) -> str:
        """Enqueue one task and return its entry ('' when it is delayed)."""
        assert self.enqueue(New(id, **options)) == ["ok"]
        return self.record(id).get("entry", "")

    def streams_of(self, agent: str) -> list[str]:
        return [f"mail:{agent}", f"inbox:{agent}", "tasks:x"]

    def claim(
        self,
        agent: str = "ann.1",
        count: int = 10,
        *,
        streams: Sequence[str] = (),
        given: Iterable[tuple[str, str]] = (),
        orphans: Iterable[tuple[str, str]] = (),
        vanished: Sequence[str] = (),
    ) -> list[Claimed]:
        """`given` are (stream, entry) that the agent has read itself, `orphans` (stream, dead consumer), some `vanished`."""
        streams = streams or self.streams_of(agent)
        given, orphans = list(given), list(orphans)
        args: list[Any] = [agent, count, LEASE, KEEP, POISON, len(given)]
        for stream, entry in given:
            args += (streams.index(stream) + 2, entry)
        args.append(len(orphans))
        for stream, consumer in orphans:
            args += ((streams.index(stream) + 2) * (-1 if consumer in vanished else 1), consumer)
        for stream in streams:
            args += (capability_of(stream), self.raw_word(stream))
        items, self.skipped = self.run("task_claim", *args, streams=streams)
        return [
            Claimed(streams[s - 2], entry, id, attempt, failures, deaths, pairs(flat))
            for s, entry, id, attempt, failures, deaths, flat in items
        ]

    def take(self, agent: str = "ann.1", **options: Any) -> Claimed:
        """A claim that brings exactly one."""
        (only,) = self.claim(agent, **options)
        return only

    def running(self, id: str = "a", agent: str = "ann.1", **options: Any) -> Claimed:
        """A new task in the hands of an agent."""
        self.new(id, **options)
        return self.take(agent)

    def settle(self, agent: str, *outcomes: Outcome) -> list[str]:
        streams = sorted({outcome.of.stream for outcome in outcomes})
        args: list[Any] = [agent, len(outcomes)]
        for out in outcomes:
            args += (streams.index(out.of.stream) + 2, out.of.entry, out.of.id, out.of.attempt, out.verb)
            args += (out.a, out.b, out.c)
        return list(self.run("task_settle", *args, streams=streams))

    def renew(
        self, agent: str = "ann.1", held: Sequence[Claimed] = (), *, idle: int = LEASE // 2, streams: Sequence[str] = ()
    ) -> tuple[list[str], list[str], int]:
        """(lost, to cancel, strays handed back)"""
        streams = streams or self.streams_of(agent)
        args: list[Any] = [agent, idle, len(held)]
        for one in held:
            args += (streams.index(one.stream) + 2, one.entry, one.id, one.attempt)
        args += [self.raw_word(stream) for stream in streams]
        lost, cancel, strays = self.run("task_renew", *args, streams=streams)
        return list(lost), list(cancel), int(strays)

    def sweep(
        self, *live: str, streams: Sequence[str] = ("tasks:x",), stall: int = LEASE // 2
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """([(stream, dead consumer)], agents whose inbox outlived them)"""
        found, inboxes, _, _ = self.run("task_sweep", LEASE, stall, len(streams), FAR, *live, streams=streams)
        return [(streams[s - 2], consumer) for s, consumer in zip(found[::2], found[1::2], strict=True)], list(inboxes)

    def fire(self, *, ahead: int = 0, limit: int = 500) -> tuple[int, str]:
        count, wait, *_ = self.run("due_fire", limit, ahead)
        return int(count), str(wait)

    def cancel(self, *ids: str, by: str = "tests") -> list[str]:
        return list(self.run("task_cancel", KEEP, by, *ids))

    def retry(self, id: str, word: str = "") -> str:
        return str(self.run("task_retry", word or secrets.token_hex(6), id, "", "")[0])

    def replay(self, letter: str, capability: str = "x", *, id: str = "a", word: str = "") -> str:
        return str(self.run("task_retry", word or secrets.token_hex(6), id, capability, letter)[0])

    def wait(self, client: str, *ids: str) -> list[tuple[str, str, str]]:
        flat = self.run("task_wait", client, *ids)
        return list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))

    def drain(self, agent: str, *offered: str, limit: int = 200) -> tuple[str, int, int]:
        word, moved, buried = self.run("inbox_drain", agent, limit, self.raw_word(f"inbox:{agent}"), 3, *offered)
        return str(word), int(moved), int(buried)

    def waiting(self, agent: str, patience: int = 0) -> list[list[str]]:
        return list(self.run("inbox_hand_on", agent, patience, 100, streams=[f"inbox:{agent}"]))

    def hand_on(self, agent: str, *moves: str) -> int:
        return int(self.run("inbox_hand_on", agent, 0, 100, *moves, streams=[f"inbox:{agent}"]))

    def join(self, name: str = "ann", *capabilities: str, boot: str = "boot", lease: int = LEASE) -> str:
        return str(self.run("agent_join", name, boot, lease, 1, "state", "ready", *capabilities)[0])

    def beat(self, id: str, *capabilities: str, boot: str = "boot", lease: int = LEASE) -> str:
        name, _, epoch = id.rpartition(".")
        return str(self.run("agent_beat", id, name, epoch, boot, lease, 1, "state", "ready", *capabilities)[0])

    def leave(self, id: str, *capabilities: str, boot: str = "boot") -> str:
        return str(self.run("agent_leave", id, boot, *capabilities))

    def bury_agents(self, limit: int = 50) -> tuple[list[str], list[str]]:
        """agent_expire: (dead now, live)"""
        dead_now, live, _, _, self.vanished = self.run("agent_expire", limit, 0, 10**9)
        return list(dead_now), list(live)

    def open(self, agent: str = "ann.1") -> None:
        """What an agent does when it comes: its streams and groups are there."""
        streams = self.streams_of(agent)
        # Mail and inbox have none; only a claim wants to know which is which.
        names = ["" if stream.startswith("mail:") else capability_of(stream) for stream in streams]
        self.run("stream_open", *names, agent, streams=streams)

    def send(self, agent: str, **fields: str) -> str:
        return str(
            self.run("message_send", f"agent {agent}", 0, "", "", *(word for pair in fields.items() for word in pair))
        )

    # -- what others do, and what goes wrong

    def raw_word(self, stream: str) -> str:
        return raw_tag(self.key(stream), 0)

    def raw(self, stream: str = "tasks:x", entry: str = "*", **fields: str) -> str:
        """A bare XADD, as somebody types it."""
        return str(self.redis.xadd(self.key(stream), dict(fields), id=entry))

    def read(self, agent: str = "ann.1", stream: str = "tasks:x", count: int = 1) -> list[str]:
        """The blocking read of an idle agent, outside of any script; returns entries."""
        got: Any = self.redis.xreadgroup(GROUP, agent, {self.key(stream): ">"}, count=count)
        return [entry for _, entries in got for entry, _ in entries]

    def age(self, agent: str, stream: str = "tasks:x", ms: int = LONG_AGO) -> None:
        """Everything pending with `agent` was last touched so long ago."""
        for entry, owner in self.pending(stream).items():
            if owner == agent:
                self.redis.execute_command("XCLAIM", self.key(stream), GROUP, agent, 0, entry, "IDLE", ms, "JUSTID")

    def crash(self, agent: str, stream: str = "tasks:x") -> None:
        """The agent is gone, and its lease is over."""
        self.redis.delete(self.key(f"agent:{agent}"))
        self.age(agent, stream)

    # -- what is there

    def record(self, id: str) -> dict[str, str]:
        return dict(self.redis.hgetall(self.key(f"task:{id}")))

    def state(self, id: str) -> str:
        return self.record(id).get("state", "")

    def ttl(self, word: str) -> int:
        """ms, -1 for ever, -2 not there"""
        return int(self.redis.pttl(self.key(word)))

    def entries(self, stream: str = "tasks:x") -> dict[str, dict[str, str]]:
        return dict(self.redis.xrange(self.key(stream)))

    def pending(self, stream: str = "tasks:x") -> dict[str, str]:
        """entry -> consumer"""
        try:
            found: Any = self.redis.xpending_range(self.key(stream), GROUP, "-", "+", 10_000)
        except redis.ResponseError:
            return {}
        return {one["message_id"]: one["consumer"] for one in found}

    def due(self) -> dict[str, int]:
        found: Any = self.redis.zrange(self.key("due"), 0, -1, withscores=True)
        return {member.removeprefix("task:"): int(score) for member, score in found}

    def letters(self, capability: str = "x") -> list[dict[str, str]]:
        return list(self.entries(f"dead:{capability}").values())

    def replies(self, client: str) -> list[dict[str, str]]:
        return list(self.entries(f"replies:{client}").values())

    def events(self, kind: str = "") -> list[dict[str, str]]:
        return [one for one in self.entries("events").values() if kind in ("", one["type"])]

    def now(self) -> int:
        seconds, micros = self.redis.time()
        return int(seconds * 1000 + micros // 1000)

    def dump(self) -> dict[str, Any]:
        """Everything but the audit tail, to compare before and after. Whether a key ends, not when."""
        found: dict[str, Any] = {}
        for key in sorted(self.redis.scan_iter(glob(self.prefix) + "*", count=10_000)):
            word = key.removeprefix(self.prefix)
            if word == "events":
                continue
            kind = self.redis.type(key)
            look: Any = {
                "list": lambda key: self.redis.lrange(key, 0, -1), "hash": self.redis.hgetall, "set": lambda key: sorted(self.redis.smembers(key)), "string": self.redis.get,
                "zset": lambda key: self.redis.zrange(key, 0, -1, withscores=True),
                "stream": lambda key: [self.redis.xrange(key), self.pending(key.removeprefix(self.prefix))],
            }[str(kind)]  # fmt: skip
            found[word] = (look(key), self.redis.pttl(key) > 0)
        return found


def capability_of(stream: str) -> str:
    """'' for an inbox, 'mail <agent>' for messages."""
    if stream.startswith("mail:"):
        return stream.replace(":", " ")
    return stream.split(":")[1] if stream.startswith("tasks:") else ""


def pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def glob(text: str) -> str:
    return text.replace("[", "\\[")
