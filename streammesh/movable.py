"""The clock of a mesh under test, which can be moved: what sleeps for 30 days is tested in milliseconds.

A mesh whose clock was taken says so in `{mesh}:meta`. Whoever opens it from then on, also another process, reads its time from
the server's clock and what `{mesh}:clock` adds to it. No other mesh ever looks there.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from streammesh.mesh import Mesh
from streammesh.moments import iso_now

__all__ = ["MeshClock"]

#: How many are fired in one go.
BATCH = 1000


class MeshClock:
    """Moves the time of one mesh, forward only. Make it with `take`, before agents open the mesh.

    What moves: timers of runs, delayed tasks, retries, deadlines, schedules, the time that `Run.now` tells. What does not, because it
    is the server's or the process's own: leases, how long finished tasks and runs are kept, `timeout=` of handlers and of
    whoever waits, and `datetime.now()`.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._ahead = 0

    @classmethod
    async def take(cls, mesh: Mesh) -> MeshClock:
        """The clock of an open mesh, which must be one for tests: it cannot be given back."""
        clock = cls(mesh)
        mesh.store.movable = True
        clock._ahead = int(await mesh.store.command("GET", mesh.keys.clock()) or 0)
        await clock._move(0)
        return clock

    async def now(self) -> datetime:
        """The time of the mesh."""
        return datetime.fromtimestamp(await self._move(0) / 1000, UTC)

    async def advance(
        self,
        by: timedelta = timedelta(0),
        /,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        patience: float = 5.0,
    ) -> datetime:
        """Let time pass, from one thing that is due to the next, and let the agents finish what each set in motion; returns the time then.

        So everything happens in its order and in time: a schedule of every day starts a run a day. Where agents do not finish within
        ``patience`` seconds (a handler waits for your test), time passes without them. Where no agent is alive nobody
        starts anything, and it is a `jump`.
        """
        target = await self._move(0) + _ms(by + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))
        while await self._mesh.agents():
            await self._settled(patience)
            due = await self._due()
            if due is None or due > target:
                break
            await self._move(max(0, due - await self._move(0)))
            await self._fire(patience)
        await self._move(max(0, target - await self._move(0)))
        await self._nudge()
        return await self.now()

    async def jump(
        self,
        by: timedelta = timedelta(0),
        /,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> datetime:
        """Move the clock at once, as if nobody had been there meanwhile; returns the time then. Agents notice it."""
        await self._move(_ms(by + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)))
        await self._nudge()
        return await self.now()

    async def _move(self, by: int) -> int:
        """ms now, by the moved clock. What is repeated after a lost reply moves nothing a second time."""
        self._ahead += by
        keys, now = self._mesh.keys, 0
        for shard in reversed(range(keys.shards)):
            now = int(await self._mesh.store.run("clock_move", [keys.prefix(shard)], [self._ahead]))
        return now

    async def _nudge(self) -> None:
        """Tell agents in every process that it is later than they think."""
        await self._mesh.store.command(
            "XADD", self._mesh.keys.control, "MAXLEN", "~", 1000, "*", "type", "clock", "at", iso_now()
        )

    async def _due(self) -> int | None:
        """When the next thing is due, in ms."""
        keys = self._mesh.keys
        heads = await self._mesh.store.commands(
            [("ZRANGE", keys.due(shard), 0, 0, "WITHSCORES") for shard in range(keys.shards)]
        )
        return min((int(float(head[1])) for head in heads if head), default=None)

    async def _fire(self, patience: float) -> None:
        """What is due now: what needs no agent here, the rest by the agents."""
        mesh = self._mesh
        for shard in range(mesh.keys.shards):
            count, rest = BATCH, list[str]()
            while count == BATCH:
                fired = await mesh.timers.fire(shard, BATCH)
                count = fired.count
                for member in fired.others:
                    kind, _, id = member.partition(" ")
                    if kind == "schedule":
                        await mesh.schedules.fire(id)
                    else:
                        rest.append(member)
            if rest:
                # Firing put them off by two seconds, which is for agents that die on it.
                due, now = mesh.keys.due(shard), await self._move(0)
                await mesh.store.commands([("ZADD", due, "XX", now, member) for member in rest])
                await self._nudge()
                await self._gone(due, rest, now, patience)

    async def _gone(self, due: str, members: list[str], score: int, patience: float) -> None:
        end = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < end:
            scores = await self._mesh.store.commands([("ZSCORE", due, member) for member in members])
            if all(one is None or int(float(one)) > score for one in scores):
                return
            await asyncio.sleep(0.005)

    async def _settled(self, patience: float) -> None:
        """Until nothing that the live agents offer waits or runs."""
        end = asyncio.get_running_loop().time() + patience
        calm = 0
        # Twice: streams are looked at one after the other, and what was in one may have moved to another.
        while calm < 2 and asyncio.get_running_loop().time() < end:
            busy = await self._busy()
            calm = 0 if busy else calm + 1
            if busy:
                await asyncio.sleep(0.002)

    async def _busy(self) -> bool:
        keys = self._mesh.keys
        streams: set[str] = set()
        for agent in await self._mesh.agents():
            for shard in range(keys.shards):
                streams.add(keys.inbox(agent.id, shard))
                streams.update(keys.runs(name, shard) for name in agent.fields.get("workflows", "").split())
                streams.update(
                    keys.tasks(name, lane, shard) for name in agent.capabilities for lane in ("high", "normal", "low")
                )
        lengths = await self._mesh.store.commands([("XLEN", stream) for stream in sorted(streams)])
        return any(isinstance(length, int) and length > 0 for length in lengths)


def _ms(by: timedelta) -> int:
    if by < timedelta(0):
        raise ValueError(f"the clock of a mesh goes forward only, and {by} is backward")
    return round(by.total_seconds() * 1000)
