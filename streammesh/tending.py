"""What every agent does for the mesh besides its own work: sweep after the dead, and act on what is due.

None of the agents is special: all of them do this, in turns, and each act is one script that any number may repeat.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from streammesh.claims import Claims
from streammesh.errors import MeshError
from streammesh.mesh import Mesh
from streammesh.suspicion import Health
from streammesh.sweep import Sweep

__all__ = ["Tending"]

_log = logging.getLogger("streammesh.agent")


class Tending:
    """The loop of one agent; ``desks`` are its claim loops, of which the first is that for tasks. ``lease`` in seconds;
    ``health`` is what the agent thinks of its own punctuality."""

    def __init__(self, mesh: Mesh, me: str, desks: Sequence[Claims], lease: float, health: Health) -> None:
        self._mesh = mesh
        self._me = me
        self._desks = desks
        self._lease = lease
        self._health = health
        self._next_due = asyncio.Event()
        self._due_at = float("inf")
        #: What to do with a due '<kind> <id>': it is given the id, and takes the member away in its script.
        self.acts: dict[str, Callable[[str], Awaitable[object]]] = {}
        #: Told of the agents that this one found dead.
        self.mourners: list[Callable[[Sequence[str]], Awaitable[object]]] = []
        #: When the loop last moved (monotonic), passes of the sweep so far, and tasks and timers fired.
        self.tick = time.monotonic()
        self.sweeps = self.fired = 0
        #: How many agents lived at the last pass.
        self.live = 0
        self._next_sweep = 0.0

    async def loop(self) -> None:
        """Sweep about once a second, and fire what is due in time; for ever."""
        mesh = self._mesh
        sweep = Sweep(mesh.store, mesh.keys, mesh.registry)
        interval = min(1.0, self._lease / 8)
        self._next_sweep = 0.0
        while True:
            self.tick = now = time.monotonic()
            if now >= self._next_sweep:
                if self._next_sweep and now - self._next_sweep > self._lease / 4:
                    # It stood still, or was busy: what it takes for late may be on time.
                    self._health.stumbled()
                # Before the pass: whoever hurries it on meanwhile wants another one.
                self._next_sweep = float("inf")
                self.live = live = await self._sweep(sweep)
                # Many agents sweep in turns rather than all at once: about twenty passes in an interval are plenty.
                pause = min(interval * max(1.0, live / 20), self._lease)
                self._next_sweep = min(self._next_sweep, time.monotonic() + pause * random.uniform(0.9, 1.0))
            if time.monotonic() >= self._due_at:
                self._due_at = float("inf")
                for shard in range(mesh.keys.shards):
                    await self._fire(shard)
            while (left := min(self._due_at, self._next_sweep) - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._next_due.wait()
                        self._next_due.clear()
                except TimeoutError:
                    break

    async def _sweep(self, sweep: Sweep) -> int:
        """One pass; returns how many agents live."""
        shards = range(self._mesh.keys.shards)
        tasks = self._desks[0]
        streams = [[stream for desk in self._desks for stream in desk.lanes.streams(shard)[0]] for shard in shards]
        report = await sweep.once(
            streams, [tasks.missing(shard) for shard in shards], self._lease, self._lease / 2, sound=self._health.sound
        )
        self.sweeps += 1
        for agent in report.died:
            _log.warning("agent=%s found %s dead", self._me, agent)
        for mourn in self.mourners if report.died else ():
            await mourn(report.died)
        for shard, (orphans, appeared) in enumerate(zip(report.orphans, report.appeared, strict=True)):
            if orphans:
                for desk in self._desks:
                    own = set(desk.lanes.streams(shard)[0])
                    desk.take_over(shard, [one for one in orphans if one[0] in own], report.vanished)
            await tasks.open_lanes(shard, appeared)
        self.put_off(report.due_in)
        return report.live

    async def _fire(self, shard: int) -> None:
        fired = await self._mesh.timers.fire(shard)
        self.fired += fired.count
        if fired.next_in is not None:
            self.put_off(fired.next_in)
        for member in fired.others:
            kind, _, id = member.partition(" ")
            act = self.acts.get(kind)
            try:
                if act is not None:
                    await act(id)
            except MeshError as error:
                # It stays due, and the next agent that looks tries again.
                _log.warning("agent=%s could not act on %s: %s", self._me, member, error)

    def hurry(self) -> None:
        """Sweep now: somebody is gone. Of many agents not all in the same moment."""
        self._next_sweep = time.monotonic() + random.uniform(0.0, 0.002 * self.live)
        self._next_due.set()

    def put_off(self, seconds: float) -> None:
        """Something is due in so many seconds: be there."""
        # A millisecond late rather than early: the server's clock has the last word.
        at = time.monotonic() + seconds + 0.001
        if at < self._due_at:
            self._due_at = at
            self._next_due.set()
