"""What is going on, read-only: one screen of numbers, and why a task is not running."""

from __future__ import annotations

from dataclasses import dataclass

from streammesh.keys import GROUP, LANES, Keys
from streammesh.store import Store

__all__ = ["CapabilityStatus", "Status"]


@dataclass(frozen=True, slots=True)
class CapabilityStatus:
    """The work of one capability, over all shards and lanes. ``oldest`` is the age of the oldest waiting entry in seconds.

    ``waiting`` is exact: entries of the streams that no agent has read.
    """

    capability: str
    waiting: int
    running: int
    dead: int
    oldest: float | None
    agents: int
    paused: bool


class Status:
    """The room of those who look."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def names(self) -> list[str]:
        """Every capability that was ever used, without the inboxes."""
        found: set[str] = set()
        for reply in await self._store.commands(
            [("SMEMBERS", self._keys.caps(shard)) for shard in range(self._keys.shards)]
        ):
            found.update(reply)
        return sorted(found - {"inbox"})

    async def capabilities(self) -> list[CapabilityStatus]:
        """Numbers for each capability, in two round trips."""
        names = await self.names()
        streams = [
            (name, self._keys.tasks(name, lane, shard))
            for name in names
            for lane in LANES
            for shard in range(self._keys.shards)
        ]
        now_reply, *replies = await self._store.commands(
            [
                ("TIME",),
                *(("XLEN", stream) for _, stream in streams),
                *(("XPENDING", stream, GROUP) for _, stream in streams),
                *(("XINFO", "GROUPS", stream) for _, stream in streams),
                *(("SCARD", self._keys.cap_agents(name)) for name in names),
                *(("HGET", self._keys.cap(name), "paused") for name in names),
                *(("XLEN", self._keys.dead(name, shard)) for name in names for shard in range(self._keys.shards)),
            ]
        )
        now = int(now_reply[0]) * 1000 + int(now_reply[1]) // 1000
        n = len(streams)
        waiting = dict.fromkeys(names, 0)
        running = dict.fromkeys(names, 0)
        heads: list[tuple[str, str, str]] = []
        for (name, stream), length, pending, groups in zip(
            streams, replies[:n], replies[n : 2 * n], replies[2 * n : 3 * n], strict=True
        ):
            held = 0 if isinstance(pending, Exception) else int(pending[0])
            size = 0 if isinstance(length, Exception) else int(length)
            waiting[name] += max(0, size - held)
            running[name] += held
            if size > held:
                last = "0-0"
                if not isinstance(groups, Exception) and groups:
                    flat = groups[0]
                    last = dict(zip(flat[::2], flat[1::2], strict=True)).get("last-delivered-id", "0-0")
                heads.append((name, stream, last))
        firsts = await self._store.commands(
            [("XRANGE", stream, f"({last}", "+", "COUNT", 1) for _, stream, last in heads]
        )
        oldest: dict[str, float] = {}
        for (name, _, _), reply in zip(heads, firsts, strict=True):
            if reply and not isinstance(reply, Exception):
                age = (now - int(reply[0][0].partition("-")[0])) / 1000
                oldest[name] = max(oldest.get(name, 0.0), age)
        rest = replies[3 * n :]
        agents, paused, dead = rest[: len(names)], rest[len(names) : 2 * len(names)], rest[2 * len(names) :]
        shards = self._keys.shards
        return [
            CapabilityStatus(
                name,
                waiting[name],
                running[name],
                sum(dead[i * shards : (i + 1) * shards]),
                oldest.get(name),
                int(agents[i]),
                bool(paused[i]),
            )
            for i, name in enumerate(names)
        ]
