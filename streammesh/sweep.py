"""One bounded pass over what dead agents left. Every agent makes one about once a second; none of them is special.

A pass buries agents whose lease has ended, clears the inboxes that outlived them, and names the consumers from which the
next claim takes over. Each move is one script, so any number of agents may sweep at once: late, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streammesh.keys import Keys, raw_tag
from streammesh.registry import Registry
from streammesh.store import Store

__all__ = ["POISON", "Report", "Sweep"]

#: Deaths of its agent that make a task poison.
POISON = 3


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass found: agents buried, how many live, (stream, dead consumer) to claim from per shard, inbox entries moved and buried."""

    died: tuple[str, ...]
    live: int
    orphans: tuple[tuple[tuple[str, str], ...], ...]
    moved: int
    buried: int
    #: Seconds until something is due in any shard (infinite: nothing is); per shard, which of the missing streams exist by now.
    due_in: float
    appeared: tuple[tuple[str, ...], ...]
    #: Dead agents whose work need not have been idle for a lease.
    vanished: frozenset[str]


class Sweep:
    """The sweep of one agent."""

    def __init__(self, store: Store, keys: Keys, registry: Registry) -> None:
        self._store = store
        self._keys = keys
        self._registry = registry

    async def once(
        self,
        streams: Sequence[Sequence[str]],
        missing: Sequence[Sequence[str]],
        lease: float,
        stall: float,
        *,
        sound: bool = True,
    ) -> Report:
        """Sweep every shard; ``streams[shard]`` are those this agent serves, ``missing[shard]`` those it looks out for.

        ``lease`` and ``stall`` in seconds; ``stall`` is the longest gap between two passes that is no standstill of the
        server. A caller that is not ``sound`` (it stood still itself) buries nobody.
        """
        expired = await self._registry.expire(50 if sound else 0, spare=2 * lease, stall=stall)
        moved = buried = 0
        offered: tuple[str, ...] | None = None
        orphans: list[tuple[tuple[str, str], ...]] = []
        due_in = math.inf
        appeared: list[tuple[str, ...]] = []
        for shard in range(self._keys.shards):
            prefix, served = self._keys.prefix(shard), streams[shard]
            known = [*served, *missing[shard]]
            found, inboxes, wait, fresh = await self._store.run(
                "task_sweep",
                [prefix, *known],
                [int(lease * 1000), int(stall * 1000), len(served), expired.at_ms, *expired.live],
            )
            if wait != "":
                due_in = min(due_in, int(wait) / 1000)
            appeared.append(tuple(known[at - 2] for at in fresh))
            orphans.append(tuple((served[found[i] - 2], found[i + 1]) for i in range(0, len(found), 2)))
            for agent in inboxes:
                if offered is None:
                    offered = await self._registry.offered()
                more = await self.drain(shard, agent, offered)
                moved, buried = moved + more[0], buried + more[1]
        return Report(
            expired.dead, len(expired.live), tuple(orphans), moved, buried, due_in, tuple(appeared), expired.vanished
        )

    async def drain(self, shard: int, agent: str, offered: Sequence[str]) -> tuple[int, int]:
        """Clear the inbox of an agent that is gone; returns (tasks moved to others, entries buried)."""
        moved = buried = 0
        while True:
            word, some, few = await self._store.run(
                "inbox_drain",
                [self._keys.prefix(shard)],
                [agent, 200, raw_tag(self._keys.inbox(agent, shard), shard), POISON, *offered],
            )
            moved, buried = moved + int(some), buried + int(few)
            if word != "more":
                return moved, buried
