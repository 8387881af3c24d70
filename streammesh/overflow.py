"""No room: what an agent does with tasks that were sent to it while all its slots are busy.

A task that was sent to an id waits for that very agent. One whose agent was chosen (by a name, a strategy, an affinity, or because
another one refused it) need not wait behind a long task: after a quarter of a second it goes to another agent that offers its
capability and has room (the less loaded of two drawn at random), never to one that it has been with, and after the second time
to the queue of its capability, where whoever has room takes it. Where nobody else offers it, it stays.
"""

from __future__ import annotations

import asyncio
import logging

from streammesh.choice import two_choices
from streammesh.claims import Claims
from streammesh.delegating import REFUSALS
from streammesh.mesh import Mesh

__all__ = ["Overflow"]

#: How often, in seconds, an agent without room looks into its inbox, and how long a task must have waited there.
PACE = PATIENCE = 0.25
#: Tasks that are handed on in one go, about.
LIMIT = 32

_log = logging.getLogger("streammesh.agent")


class Overflow:
    """The agent ``me`` with its ``claims``; ``moved`` counts what it handed on."""

    def __init__(self, mesh: Mesh, me: str, claims: Claims) -> None:
        self._mesh = mesh
        self._me = me
        self._claims = claims
        self.moved = 0

    async def loop(self) -> None:
        """Look now and then while there is no room, for ever; with room this costs the server nothing."""
        while True:
            await asyncio.sleep(PACE)
            for shard in range(self._mesh.keys.shards):
                if self._claims.open_slots <= 0 and not self._claims.draining:
                    await self._look(shard)

    async def _look(self, shard: int) -> None:
        keys = [self._mesh.keys.prefix(shard), self._mesh.keys.inbox(self._me, shard)]
        # What runs is in the inbox too, and before all that waits.
        about = [self._me, int(PATIENCE * 1000), self._claims.slots + LIMIT]
        waiting = await self._mesh.store.run("inbox_hand_on", keys, about)
        if not waiting:
            return
        # Old loads would send work to those who are full themselves.
        peers = await self._mesh.peers(fresh=True)
        moves: list[str] = []
        for entry, id, capability, refused in waiting:
            before = refused.split()
            others = [one for one in peers if capability in one.capabilities and one.willing and one.id != self._me]
            able = [one for one in others if not one.full and one.id not in before]
            if able and len(before) + 1 < REFUSALS:
                moves += (entry, id, two_choices(able).id)
            elif others:
                moves += (entry, id, "")
        if moves:
            moved = int(await self._mesh.store.run("inbox_hand_on", keys, [*about, *moves]))
            self.moved += moved
            _log.info("agent=%s has no room and handed on %d tasks", self._me, moved)
