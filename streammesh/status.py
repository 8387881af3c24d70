"""What is going on, read-only: numbers for every capability, and one screen about the whole mesh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streammesh.keys import GROUP, LANES, Keys
from streammesh.registry import AgentInfo, Registry
from streammesh.store import Store

__all__ = ["CapabilityStatus", "Overview", "Rates", "Status", "fields_of"]

#: Delayed tasks whose capability is looked up, soonest first; more than that are counted, not told apart.
DELAYED_SEEN = 10_000


@dataclass(frozen=True, slots=True)
class CapabilityStatus:
    """The work of one capability, over all shards and lanes. ``oldest`` is the age of the oldest waiting entry in seconds.

    ``waiting`` is exact: entries of the streams that no agent has read. ``agents`` counts the live ones that take new
    work; ``paused_by`` names who paused it ('' when it is not). ``entered`` and ``left`` count entries since the streams
    were made: two looks make a rate.
    """

    capability: str
    waiting: int
    running: int
    delayed: int
    dead: int
    oldest: float | None
    agents: int
    paused_by: str
    entered: int
    left: int

    @property
    def paused(self) -> bool:
        return bool(self.paused_by)

    @property
    def idle(self) -> bool:
        """Nothing to be done and nobody to do it."""
        return not (self.waiting or self.running or self.delayed or self.dead or self.agents or self.paused_by)


@dataclass(frozen=True, slots=True)
class Rates:
    """Entries a second between two looks: that came, and that were finished (retries are counted as both)."""

    entered: float
    left: float


@dataclass(frozen=True, slots=True)
class Overview:
    """One look at a mesh. ``now_ms`` is the server's clock, ``next_due`` seconds until the next delayed task, ``inboxes``
    entries that wait in inboxes of agents, ``unsorted`` delayed tasks beyond those whose capability was looked up, ``refused`` how often each boundary of
    flows (hops, messages, tasks, fan_out, cycle, deadline) was come to."""

    now_ms: int
    agents: tuple[AgentInfo, ...]
    capabilities: tuple[CapabilityStatus, ...]
    delayed: int
    unsorted: int
    next_due: float | None
    inboxes: int
    refused: Mapping[str, int] = field(default_factory=dict)

    def states(self) -> dict[str, int]:
        """State -> number of agents."""
        return dict(Counter(agent.state for agent in self.agents))

    def rates(self, earlier: Overview) -> dict[str, Rates]:
        """What came and went per second since an earlier look."""
        seconds = max(0.001, (self.now_ms - earlier.now_ms) / 1000)
        before = {one.capability: one for one in earlier.capabilities}
        return {
            one.capability: Rates(
                max(0, one.entered - before[one.capability].entered) / seconds,
                max(0, one.left - before[one.capability].left) / seconds,
            )
            for one in self.capabilities
            if one.capability in before
        }


class Status:
    """The room of those who look."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._registry = Registry(store, keys)

    async def names(self) -> list[str]:
        """Every capability that was ever used, without the inboxes."""
        found: set[str] = set()
        for reply in await self._store.commands(
            [("SMEMBERS", self._keys.caps(shard)) for shard in range(self._keys.shards)]
        ):
            found.update(reply)
        return sorted(found - {"inbox"})

    async def now_ms(self) -> int:
        """The mesh's clock: the server's, but in meshes under test."""
        seconds, micros = await self._store.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000 + await self._store.ahead(self._keys.clock())

    async def capabilities(self) -> list[CapabilityStatus]:
        """Numbers for each capability."""
        return list((await self.overview()).capabilities)

    async def overview(self) -> Overview:
        """Numbers for everything, in five round trips (more with thousands of delayed tasks)."""
        names = await self.names()
        agents = await self._registry.agents()
        shards = range(self._keys.shards)
        streams = [(name, self._keys.tasks(name, lane, shard)) for name in names for lane in LANES for shard in shards]
        replies = await self._store.commands(
            [
                ("TIME",),
                *(("XPENDING", stream, GROUP) for _, stream in streams),
                *(("XINFO", "STREAM", stream) for _, stream in streams),
                *(("XINFO", "GROUPS", stream) for _, stream in streams),
                *(("HGET", self._keys.cap(name), "paused") for name in names),
                *(("XLEN", self._keys.dead(name, shard)) for name in names for shard in shards),
            ]
        )
        now = int(replies[0][0]) * 1000 + int(replies[0][1]) // 1000
        rest = iter(replies[1:])
        pending = [0 if isinstance(reply, Exception) else int(reply[0]) for reply in _take(rest, len(streams))]
        infos = [fields_of(reply) for reply in _take(rest, len(streams))]
        groups = [fields_of(reply[0]) if _some(reply) else {} for reply in _take(rest, len(streams))]
        paused = dict(zip(names, _take(rest, len(names)), strict=True))
        dead = [sum(_take(rest, len(shards))) for _ in names]
        waiting, running, entered, left = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
        heads: list[tuple[str, str, str]] = []
        for (name, stream), held, info, group in zip(streams, pending, infos, groups, strict=True):
            length = int(info.get("length", 0))
            # A hand-typed XDEL of a running entry leaves it pending until the next sweep.
            waiting[name] += max(0, length - held)
            running[name] += held
            entered[name] += int(info.get("entries-added", length))
            left[name] += int(info.get("entries-added", length)) - length
            if length > held:
                heads.append((name, stream, str(group.get("last-delivered-id", "0-0"))))
        oldest: dict[str, float] = {}
        firsts = await self._store.commands([("XRANGE", s, f"({last}", "+", "COUNT", 1) for _, s, last in heads])
        for (name, _, _), reply in zip(heads, firsts, strict=True):
            if _some(reply):
                age = max(0.0, (now - int(reply[0][0].partition("-")[0])) / 1000)
                oldest[name] = max(oldest.get(name, 0.0), age)
        delayed, total, next_due = await self._delayed(now)
        offered = Counter(name for agent in agents if agent.state != "draining" for name in agent.capabilities)
        return Overview(
            now,
            tuple(agents),
            tuple(
                CapabilityStatus(
                    name, waiting[name], running[name], delayed[name], dead[i], oldest.get(name), offered[name],
                    str(paused[name] or ""), entered[name], left[name],
                )
                for i, name in enumerate(names)
            ),
            total,
            total - sum(delayed.values()),
            next_due,
            await self._inboxes(),
            await self._refused(),
        )  # fmt: skip

    async def _delayed(self, now: int) -> tuple[Counter[str], int, float | None]:
        """Delayed tasks by capability, their number, and seconds until the next one."""
        counts: Counter[str] = Counter()
        total, soonest = 0, None
        for shard in range(self._keys.shards):
            due = self._keys.due(shard)
            size, members = await self._store.commands(
                [("ZCARD", due), ("ZRANGE", due, 0, DELAYED_SEEN - 1, "WITHSCORES")]
            )
            # Timers of runs are due there as well.
            tasks = [(str(m), due) for m, due in zip(members[::2], members[1::2], strict=True) if m.startswith("task:")]
            total += int(size) - (len(members) // 2 - len(tasks))
            if tasks:
                first = max(0.0, (float(tasks[0][1]) - now) / 1000)
                soonest = first if soonest is None else min(soonest, first)
            ids = [member.partition(":")[2] for member, _ in tasks]
            for start in range(0, len(ids), 1000):
                some = ids[start : start + 1000]
                replies = await self._store.commands([("HGET", self._keys.task(id), "capability") for id in some])
                counts.update(str(reply) for reply in replies if _some(reply))
        return counts, total, soonest

    async def _refused(self) -> dict[str, int]:
        """Guard -> how often it refused something, in all shards."""
        counts: Counter[str] = Counter()
        keys = [self._keys.refused(shard) for shard in range(self._keys.shards)]
        for flat in await self._store.commands([("HGETALL", key) for key in keys]):
            counts.update({name: int(count) for name, count in fields_of(flat).items()})
        return dict(counts)

    async def _inboxes(self) -> int:
        """Entries that wait in the inboxes of agents."""
        waiting = 0
        for shard in range(self._keys.shards):
            owners = await self._store.command("ZRANGE", self._keys.inboxes(shard), 0, -1)
            boxes = [box(owner, shard) for owner in owners for box in (self._keys.inbox, self._keys.mail)]
            lengths = await self._store.commands([("XLEN", box) for box in boxes])
            pending = await self._store.commands([("XPENDING", box, GROUP) for box in boxes])
            for length, held in zip(lengths, pending, strict=True):
                waiting += int(length) - (int(held[0]) if _some(held) else 0)
        return max(0, waiting)


def fields_of(flat: Any) -> dict[str, Any]:
    """A flat reply of names and values as a mapping; empty for an error or nothing."""
    return dict(zip(flat[::2], flat[1::2], strict=True)) if _some(flat) else {}


def _some(reply: Any) -> bool:
    return bool(reply) and not isinstance(reply, Exception)


def _take(replies: Iterable[Any], count: int) -> list[Any]:
    source = iter(replies)
    return [next(source) for _ in range(count)]
