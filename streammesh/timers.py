"""What is due: delayed tasks and retries wait in one sorted set per shard; any agent may fire them, each fires once."""

from __future__ import annotations

from dataclasses import dataclass

from streammesh.keys import Keys
from streammesh.store import Store

__all__ = ["Fired", "Timers"]


@dataclass(frozen=True, slots=True)
class Fired:
    """How many were fired, seconds until the next one (None: nothing waits), and what else is due: '<kind> <id>'."""

    count: int
    next_in: float | None
    others: tuple[str, ...] = ()


class Timers:
    """The room of due work in one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def fire(self, shard: int = 0, limit: int = 1000, *, ahead: float = 0.0) -> Fired:
        """Queue up to ``limit`` tasks whose time has come (``ahead``: within so many seconds, for tests); atomic.

        What is neither a task nor a run's timer (schedules, votes, auctions) is named for the caller to act on; it comes
        again two seconds later unless somebody did.
        """
        count, wait, *others = await self._store.run("due_fire", [self._keys.prefix(shard)], [limit, int(ahead * 1000)])
        return Fired(int(count), int(wait) / 1000 if wait != "" else None, tuple(others))

    async def waiting(self) -> int:
        """How many tasks wait for their time."""
        return sum(await self._store.commands([("ZCARD", self._keys.due(shard)) for shard in range(self._keys.shards)]))
