"""Runs in a list, and how many there are in each state. Read-only, and bounded whatever the size of the mesh.

Runs that wait for an agent or are with one are counted in the streams, exactly; parked, paused and stuck ones have no
index and are found by a bounded scan of the heads. A look, not a snapshot: a run that moves meanwhile may be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streammesh.errors import InvalidPayload
from streammesh.journal import Head
from streammesh.keys import GROUP, Keys, raw_tag
from streammesh.moments import iso
from streammesh.registry import AgentInfo, Registry
from streammesh.store import Store

__all__ = ["FINAL", "STATES", "RunList", "RunNumbers", "RunsListed", "offered_by", "states_of", "stream_of"]

#: Every state of a run; the last three are final.
STATES = ("queued", "running", "parked", "paused", "stuck", "succeeded", "failed", "cancelled")
FINAL = frozenset(STATES[5:])
#: The fields of a listed head. Result and status stay where they are: they may be large.
FIELDS = (
    "state", "capability", "version", "agent", "attempt", "started_at", "finished_at", "error", "parent", "paused", "waits",
    "generation", "entry",
)  # fmt: skip
#: Keys that a scan for a list looks at, at most in each shard; and those that one for numbers does.
SCANNED = 200_000
COUNTED = 50_000


@dataclass(frozen=True, slots=True)
class RunsListed:
    """Heads, newest first. ``complete`` is False when the scan ended at its bound: there may be more."""

    runs: tuple[Head, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """How many runs are in each open state; ``nobody`` is workflow[@version] -> queued runs that no live agent can execute.

    ``complete`` is False when parked, paused and stuck are what a bounded scan came to.
    """

    states: Mapping[str, int]
    nobody: Mapping[str, int]
    complete: bool

    @property
    def any(self) -> bool:
        return any(self.states.values())


@dataclass(frozen=True, slots=True)
class _Wanted:
    states: frozenset[str]
    workflow: str
    since: str

    def __call__(self, head: Head) -> bool:
        return (
            head.state in self.states
            and (not self.workflow or self.workflow in (head.workflow, stream_of(head)))
            and head.fields.get("started_at", "") >= self.since
        )


def states_of(status: str | Collection[str] | None) -> frozenset[str]:
    """The states that are meant: one word, several, or none for all; ``open`` is every state that is not final.

    Raises InvalidPayload for a word that is no state.
    """
    words = [status] if isinstance(status, str) else list(status) if status is not None else list(STATES)
    for word in words:
        if word not in (*STATES, "open"):
            raise InvalidPayload(f"{word!r} is no state of a run; expected open, {', '.join(STATES)}")
    return frozenset(words) - {"open"} | (set(STATES) - FINAL if "open" in words else set())


def stream_of(head: Head) -> str:
    """The workflow of a run with its version, as in ``{mesh}:runs:<workflow>[@<version>]``."""
    version = head.fields.get("version", "1")
    return head.workflow if version == "1" else f"{head.workflow}@{version}"


def offered_by(agent: AgentInfo) -> tuple[str, ...]:
    """The workflows of a live agent, each with its version: ``digest digest@2``."""
    return tuple(agent.fields.get("workflows", "").split())


class RunList:
    """Lists and counts the runs of one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._registry = Registry(store, keys)

    async def workflows(self) -> list[str]:
        """Every workflow[@version] that was ever started, or that a live agent has."""
        found: set[str] = set()
        for reply in await self._store.commands(
            [("SMEMBERS", self._keys.workflows(n)) for n in range(self._keys.shards)]
        ):
            found.update(reply)
        for agent in await self._registry.agents():
            found.update(offered_by(agent))
        return sorted(found)

    async def runs(
        self, states: Collection[str], workflow: str | None = None, limit: int = 50, since: datetime | None = None
    ) -> RunsListed:
        """Up to ``limit`` runs in one of ``states``, newest first; ``workflow`` with or without its version.

        ``since``: only those that were started then or later. Raises InvalidPayload when it has no time zone.
        """
        if limit < 1:
            raise InvalidPayload(f"limit={limit} is not usable: expected 1 or more runs")
        if since is not None and since.tzinfo is None:
            raise InvalidPayload(f"since={since.isoformat()} has no time zone; use datetime.now(UTC) or .astimezone()")
        wanted = _Wanted(frozenset(states), workflow or "", iso(since.timestamp() * 1000) if since else "")
        found: dict[str, Head] = {}
        if "queued" in states:
            found.update((head.id, head) for head in await self._raw(limit))
        complete = True
        for shard in range(self._keys.shards):
            complete = await self._scan(shard, found, limit, wanted) and complete
        kept = [head for head in found.values() if wanted(head)]
        kept.sort(key=lambda head: (head.fields.get("started_at", ""), head.id), reverse=True)
        return RunsListed(tuple(kept[:limit]), complete)

    async def _scan(self, shard: int, found: dict[str, Head], limit: int, wanted: _Wanted) -> bool:
        cursor, looked = "0", 0
        while True:
            cursor, ids = await self._some(shard, cursor)
            replies = await self._store.commands([("HMGET", self._keys.run(id), *FIELDS) for id in ids])
            for id, reply in zip(ids, replies, strict=True):
                if isinstance(reply, Exception) or not reply[0]:
                    continue
                head = Head(id, {name: text for name, text in zip(FIELDS, reply, strict=True) if text})
                if wanted(head):
                    found[id] = head
            if len(found) > 4 * limit + 1000:
                newest = sorted(found.values(), key=lambda head: head.fields.get("started_at", ""))[-limit:]
                found.clear()
                found.update((head.id, head) for head in newest)
            looked += 1000
            if cursor == "0" or looked >= SCANNED:
                return cursor == "0"

    async def _some(self, shard: int, cursor: str) -> tuple[str, list[str]]:
        """The next ids of a scan of the heads."""
        prefix = f"{self._keys.prefix(shard)}run:"
        cursor, keys = await self._store.command("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1000, "TYPE", "hash")
        return str(cursor), [str(key).removeprefix(prefix) for key in keys]

    async def _raw(self, limit: int) -> list[Head]:
        """Runs that a bare XADD started and nobody has claimed: their head is made when they are."""
        places = [
            (name, self._keys.runs(name, n), n) for name in await self.workflows() for n in range(self._keys.shards)
        ]
        replies = await self._store.commands([("XRANGE", s, "-", "+", "COUNT", limit) for _, s, _ in places])
        heads = []
        for (name, stream, shard), reply in zip(places, replies, strict=True):
            workflow, _, version = name.partition("@")
            for entry, flat in [] if isinstance(reply, Exception) else reply:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                if "payload" in fields:
                    id = fields.get("id") or f"{raw_tag(stream, shard)}-{entry}"
                    at = iso(int(entry.partition("-")[0]))
                    heads.append(Head(id, {"state": "queued", "capability": workflow, "version": version or "1", "started_at": at}))  # fmt: skip
        return heads

    async def numbers(self) -> RunNumbers:
        """Runs in each open state: two round trips where no workflow was ever started, a bounded scan elsewhere."""
        agents = await self._registry.agents()
        names = await self.workflows()
        states: Counter[str] = Counter()
        nobody: dict[str, int] = {}
        offered = {name for agent in agents for name in offered_by(agent)}
        queued, running = await self.waiting(names)
        for name in names:
            states["queued"] += queued[name]
            states["running"] += running[name]
            if queued[name] and name not in offered:
                nobody[name] = queued[name]
        complete = True
        for shard in range(self._keys.shards if names else 0):
            cursor, looked = "0", 0
            while True:
                cursor, ids = await self._some(shard, cursor)
                replies = await self._store.commands([("HGET", self._keys.run(id), "state") for id in ids])
                states.update(str(reply) for reply in replies if reply in ("parked", "paused", "stuck"))
                looked += 1000
                if cursor == "0" or looked >= COUNTED:
                    complete = complete and cursor == "0"
                    break
        return RunNumbers({state: states[state] for state in STATES[:5]}, nobody, complete)

    async def waiting(self, names: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
        """workflow[@version] -> wake-ups that wait for an agent, and those that one holds; exact."""
        places = [(name, self._keys.runs(name, n)) for name in names for n in range(self._keys.shards)]
        lengths = await self._store.commands([("XLEN", stream) for _, stream in places])
        pending = await self._store.commands([("XPENDING", stream, GROUP) for _, stream in places])
        queued: Counter[str] = Counter()
        running: Counter[str] = Counter()
        for (name, _), length, held in zip(places, lengths, pending, strict=True):
            count = 0 if isinstance(held, Exception) else int(held[0])
            queued[name] += max(0, int(_number(length)) - count)
            running[name] += count
        return queued, running


def _number(reply: Any) -> int:
    return 0 if isinstance(reply, Exception) else int(reply)
