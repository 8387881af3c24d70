"""Which peers an agent doubts, kept up to date from their beats: one small read in each interval between its own.

Doubt is for routing alone: a suspect is given no directed work. Whether its work moves is decided by its lease, and by
nobody who has just stood still himself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from streammesh.mesh import Mesh
from streammesh.suspicion import Health, Suspicion

__all__ = ["Detecting"]

_log = logging.getLogger("streammesh.agent")


class Detecting:
    """What the agent ``me`` knows of the beats of all others. ``lease`` in seconds: it beats four times in one."""

    def __init__(self, mesh: Mesh, me: str, lease: float) -> None:
        self._mesh = mesh
        self._me = me
        self._beat = lease / 4
        self.health = Health(self._beat, self._beat)
        self.suspicion = Suspicion(self._beat, self.health)
        #: How many of our own beats failed so far, as the heartbeat counts them.
        self.failures: Callable[[], int] = lambda: 0
        #: The ids of those that were in the registry at the last look, ours among them.
        self.live: tuple[str, ...] = ()

    async def loop(self) -> None:
        """Look once in a beat, for ever; in large meshes less often, so that all looks together do not grow as a square."""
        mesh, failures = self._mesh, self.failures()
        mesh.roster.doubt = self.suspicion.why
        interval = self._beat
        while True:
            await asyncio.sleep(interval)
            self.health.ticked(time.monotonic(), interval)
            interval = self._beat * max(1.0, len(self.live) / 100)
            if failures < (failures := self.failures()):
                self.health.stumbled()
            clock, scored = await mesh.store.commands([("TIME",), ("ZRANGE", mesh.keys.agents, 0, -1, "WITHSCORES")])
            self.look(
                dict(zip(scored[::2], map(float, scored[1::2]), strict=True)), int(clock[0]) + int(clock[1]) / 1e6
            )

    def look(self, beats: Mapping[str, float], now: float) -> None:
        """``beats``: when each agent beat last, in ms by the server's clock; ``now`` is that clock in seconds."""
        for gone in set(self.live).difference(beats):
            self.suspicion.forget(gone)
            self._mesh.edges.forget(gone)
        self.live = tuple(beats)
        for id, at in beats.items():
            if id != self._me:
                known = self._mesh.roster.get(id)
                self.suspicion.heard(id, at / 1000, known.lease / 4 if known else None)
        resting = self._mesh.edges.resting(time.monotonic())
        for id in beats:
            self.suspicion.broken(id, id in resting)
        was_held = self.suspicion.held
        said = self.suspicion.judge(now)
        for id, reason in said.suspected.items():
            _log.info("agent=%s suspects %s: %s", self._me, id, reason)
        for id in said.cleared:
            _log.info("agent=%s no longer suspects %s", self._me, id)
        if said.held and not was_held:
            _log.warning(
                "agent=%s most of %d agents look late at once: nobody is suspected for it", self._me, len(beats)
            )
