"""Slots, claims and settlements of one agent: what it holds, how it takes more, how it gives back.

One loop per shard claims: while there is a backlog it asks the script for as many entries as slots are free, else it
blocks in a read and passes what that brought to the same script. Outcomes are settled in batches: a flush starts at once
when none is under way, and takes along whatever finished meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streammesh.errors import MeshError
from streammesh.keys import GROUP, Keys
from streammesh.lanes import Lanes, Mail, Wakes
from streammesh.mesh import Mesh
from streammesh.record import RETENTION
from streammesh.store import BLOCK
from streammesh.sweep import POISON

__all__ = ["Claims", "Held"]

#: The most entries of one claim: small enough that the next one is under way while these run.
CLAIM = 128
#: The most outcomes of one settlement.
SETTLE = 500
#: Outcomes that may wait for a settlement before no more is claimed.
UNSETTLED = 2000
_log = logging.getLogger("streammesh.agent")


@dataclass(slots=True, eq=False)
class Held:
    """One entry that this agent holds: claimed and not yet settled. ``id`` is '' for a message."""

    shard: int
    stream: str
    entry: str
    id: str
    attempt: int
    failures: int
    capability: str
    fields: dict[str, str]
    work: asyncio.Task[None] | None = None
    #: Whether its outcome is on its way: then it is not lost, when the server no longer has it as running.
    settling: bool = False
    #: The journal, where the id is 'run <id>'.
    journal: list[str] = field(default_factory=list)
    #: Why it is being stopped: '' (it is not), 'cancel', 'lost', 'release'.
    stopping: str = field(default="")


class Claims:
    """The claim loops and the settling of one agent ``me`` on ``mesh``; ``start`` begins the work on a fresh entry."""

    def __init__(
        self, mesh: Mesh, me: str, lanes: Lanes | Wakes | Mail, slots: int, lease: float, start: Callable[[Held], None]
    ) -> None:
        self._mesh = mesh
        self._keys: Keys = mesh.keys
        self._me = me
        self.lanes = lanes
        self._lease = lease
        self._start = start
        self.slots = slots
        self.free = slots
        self.held: dict[tuple[str, str], Held] = {}
        self.draining = False
        #: Counters since the start: claimed, settled, stale.
        self.claimed = self.settled = self.stale = 0
        shards = range(self._keys.shards)
        self._orphans: list[list[tuple[str, str]]] = [[] for _ in shards]
        self._vanished: frozenset[str] = frozenset()
        self._backlog: list[list[tuple[str, str]]] = [[] for _ in shards]
        self._look = [True for _ in shards]
        self._readers, self._claimers, self._settlers = (
            [mesh.store.link(f"{role}-{shard}", mesh.keys.owner(me)) for shard in shards]
            for role in ("read", "claim", "settle")
        )
        self._unsettled: list[list[tuple[Held, str, Any, Any, Any]]] = [[] for _ in shards]
        self._flushers: list[asyncio.Task[None] | None] = [None for _ in shards]
        self._room = asyncio.Event()
        self._waker: asyncio.Task[None] | None = None
        self._empty = [False for _ in shards]
        self._reading = [False for _ in shards]
        self._ticks = [time.monotonic() for _ in shards]
        self.idle = asyncio.Event()
        #: Slots that claims under way may fill.
        self._reserved = 0

    # -- which streams

    def pause(self, paused: frozenset[str]) -> None:
        """Take nothing new of the capabilities in ``paused``, and of nothing else."""
        if self.lanes.pause(paused):
            self.wake()

    async def find_lanes(self) -> None:
        """Look which lanes are in use by now."""
        for shard in range(self._keys.shards):
            for lane, streams in self.lanes.missing(shard):
                if await self._mesh.store.command("EXISTS", *(stream for stream, _ in streams)):
                    await self._open_lane(shard, lane, streams)

    def missing(self, shard: int) -> list[str]:
        """The streams of lanes that are not in use yet."""
        return [stream for _, streams in self.lanes.missing(shard) for stream, _ in streams]

    async def open_lanes(self, shard: int, appeared: Collection[str]) -> None:
        """Serve the lanes of which a stream has appeared."""
        for lane, streams in self.lanes.missing(shard):
            if any(stream in appeared for stream, _ in streams):
                await self._open_lane(shard, lane, streams)

    async def _open_lane(self, shard: int, lane: str, streams: Sequence[tuple[str, str]]) -> None:
        await self._mesh.registry.open_streams(shard, streams, self._me)
        self.lanes.add(shard, lane)
        self.wake(shard)

    def take_over(self, shard: int, orphans: Sequence[tuple[str, str]], vanished: frozenset[str] = frozenset()) -> None:
        """Claim from these dead consumers before anything new; from those in ``vanished`` without waiting for a lease."""
        # An agent that was thought dead itself takes nothing from itself: it holds that already.
        self._vanished, self._orphans[shard] = vanished, [one for one in orphans if one[1] != self._me]
        if self._orphans[shard]:
            self.wake(shard)

    # -- claim

    async def loop(self, shard: int) -> None:
        """Claim until draining. Supervised by the agent: an error ends the loop and it is begun anew."""
        while not self.draining:
            self._ticks[shard] = time.monotonic()
            if self._full() and await self._claim(shard, 0, back=True):
                # Its read brought something when another shard had been quicker: somebody who is free should have it.
                continue
            if self.free <= 0 or len(self._unsettled[shard]) > UNSETTLED:
                # Waiting for a handler to end may take as long as the handler does: it is no standstill.
                self._ticks[shard] = math.inf
                self._room.clear()
                await self._room.wait()
                continue
            if not self._look[shard]:
                self._empty[shard] = True
                self._reading[shard] = True
                self._settle_idle()
                try:
                    await self._read(shard)
                finally:
                    self._reading[shard] = False
                if not self._look[shard] and not self._backlog[shard]:
                    continue
            self._empty[shard] = False
            # Reads reserve no slot, or shards would take turns of BLOCK seconds for a single one.
            self._look[shard] = self.free <= 0
            if self.free > 0 and await self._claim(shard, min(self.free, CLAIM)):
                self._look[shard] = True
            if self._full() and any(self._reading):
                self.wake()
        self._empty[shard] = True

    def _full(self) -> bool:
        """Whether every slot is in use, rather than reserved by a claim under way."""
        return self.free <= 0 and not self._reserved

    def ticked(self) -> float:
        """The monotonic time at which the claim loop that is furthest behind last moved."""
        return math.inf if self.draining else min(self._ticks)

    async def _read(self, shard: int) -> None:
        """Block until there is something, or BLOCK has passed, or somebody wakes us."""
        reader = self._readers[shard]
        store = self._mesh.store
        if reader.client_id is None and store.genuine:
            reader.client_id = int(await store.command("CLIENT", "ID", link=reader))
        streams = self.lanes.order(shard).streams
        if self._look[shard] or self.draining:
            return
        try:
            got = await store.command(
                "XREADGROUP", "GROUP", GROUP, self._me, "COUNT", 1, "BLOCK", int(BLOCK * 1000),
                "STREAMS", *streams, *([">"] * len(streams)), link=reader, timeout=BLOCK + 3,
            )  # fmt: skip
        except MeshError as error:
            # NOGROUP or UNBLOCKED: the stream went away under the read. The claim script makes it anew, and says so.
            _log.warning("agent=%s read interrupted: %s", self._me, error)
            self._look[shard] = True
            await asyncio.sleep(0.05)
            return
        for stream, entries in got or ():
            self._backlog[shard] += [(stream, entry) for entry, _ in entries]
        if not got and not store.genuine:
            # fakeredis wakes a counted blocking read with nothing in its hands.
            self._look[shard] = True

    async def _claim(self, shard: int, count: int, *, back: bool = False) -> bool:
        """One claim of up to ``count`` entries; True when there may be more at once.

        ``back`` hands what was read and not begun back instead, all of it; True when there was something.
        """
        # What is in the inbox stays: it is for nobody else.
        own = self.lanes.own(shard) if back else ""
        if back and all(stream == own for stream, _ in self._backlog[shard]):
            # Before a turn of the lanes is used up for nothing.
            return False
        order = self.lanes.order(shard)
        index = {stream: at for at, stream in enumerate(order.streams, 2)}
        given = [one for one in self._backlog[shard] if one[0] in index and one[0] != own][: None if back else count]
        count = len(given) if back else count
        # What is paused by now is left to the heartbeat, which hands it back: kept, it would make this loop spin.
        rest = [one for one in self._backlog[shard] if one[0] in index and one not in given]
        orphans = [(stream, consumer) for stream, consumer in self._orphans[shard] if stream in index and not back]
        args: list[Any] = [self._me, count, int(self._lease * 1000), int(RETENTION * 1000), POISON, len(given)]
        for stream, entry in given:
            args += (index[stream], entry)
        args.append(len(orphans))
        for stream, consumer in orphans:
            args += (-index[stream] if consumer in self._vanished else index[stream], consumer)
        args += order.about
        self._backlog[shard] = rest
        # What goes back takes no slot.
        reserved = 0 if back else count
        self.free -= reserved
        self._reserved += reserved
        taken = 0
        try:
            items, skipped = await self._mesh.store.run(
                "task_claim", [self._keys.prefix(shard), *order.streams], args, self._claimers[shard]
            )
            taken = len(items)
        finally:
            # What was reserved and not used is free again, also for a loop of another shard that waits for it.
            self._reserved -= reserved
            self.free += 0 if back else count - taken
            self._room.set()
        self.claimed += taken
        for at, entry, id, attempt, failures, _, flat in items:
            run = id.startswith("run ")
            fields = {"flow": failures} if run else dict(zip(flat[::2], flat[1::2], strict=True))
            capability = order.capabilities[at - 2] or fields.get("capability", "")
            held = Held(shard, order.streams[at - 2], entry, id, attempt, 0 if run else failures, capability, fields)
            if run:
                held.journal = flat
            self.held[held.stream, entry] = held
            if back or (self.draining and id):
                self.settle(held, "release", "", "", "")
                self.free += 0 if back else 1
            else:
                self._start(held)
        if not back and (taken < count or not orphans):  # what is in paused streams, the next sweep names again
            self._orphans[shard] = []
        return back or taken + skipped >= count or bool(rest) or bool(self._orphans[shard])

    def forget(self, held: Held) -> None:
        """Drop an entry that is no longer ours; nothing is settled."""
        self._drop(held)
        self._settle_idle()

    def _drop(self, held: Held) -> None:
        # Not a later attempt of the same entry.
        if self.held.get((held.stream, held.entry)) is held:
            del self.held[held.stream, held.entry]

    def release_slot(self) -> None:
        """A handler is through: its slot may be used again."""
        self.free += 1
        self._room.set()

    def wake(self, shard: int | None = None) -> None:
        """Make the claim loops look again, though they may be blocked in a read."""
        for one in range(self._keys.shards) if shard is None else (shard,):
            self._look[one] = True
        self._room.set()
        if self._waker is None or self._waker.done():
            self._waker = asyncio.create_task(self._unblock())

    async def _unblock(self) -> None:
        # A read that is just being sent is missed by an UNBLOCK that overtakes it, hence more than one.
        for _ in range(50):
            blocked = [
                reader
                for reader, look, reading in zip(self._readers, self._look, self._reading, strict=True)
                if reading and (look or self.draining)
            ]
            if not blocked:
                return
            try:
                for reader in blocked:
                    await self._mesh.store.unblock(reader)
            except MeshError:
                return
            await asyncio.sleep(0.02)

    # -- settle

    def settle(self, held: Held, verb: str, a: Any, b: Any, c: Any) -> None:
        """Put an outcome on its way; the batch that is being gathered now takes it along."""
        shard = held.shard
        self._unsettled[shard].append((held, verb, a, b, c))
        if self._flushers[shard] is None:
            self._flushers[shard] = asyncio.create_task(self._flush(shard))

    async def _flush(self, shard: int) -> None:
        waiting = self._unsettled[shard]
        try:
            while waiting:
                batch = self._take(waiting)
                keys: dict[str, int] = {}
                items = []
                for held, verb, a, b, c in batch:
                    at = keys.setdefault(held.stream, len(keys) + 2)
                    items.append((at, held.entry, held.id, held.attempt, verb, a, b, c))
                try:
                    verdicts = await self._mesh.tasks.settle(shard, self._me, list(keys), items, self._settlers[shard])
                except MeshError as error:
                    _log.error(
                        "agent=%s %d outcomes could not be settled, trying again: %s", self._me, len(batch), error
                    )
                    waiting[:0] = batch
                    await asyncio.sleep(0.5)
                    continue
                self._settled(batch, verdicts)
        finally:
            self._flushers[shard] = None
            self._settle_idle()

    def _take(self, waiting: list[tuple[Held, str, Any, Any, Any]]) -> list[tuple[Held, str, Any, Any, Any]]:
        count = bytes_ = 0
        for _, _, a, _, c in waiting[:SETTLE]:
            bytes_ += len(a) + len(c)
            if count and bytes_ > 4 * 1024 * 1024:
                break
            count += 1
        batch = waiting[:count]
        del waiting[:count]
        return batch

    def _settled(self, batch: Iterable[tuple[Held, str, Any, Any, Any]], verdicts: Sequence[str]) -> None:
        for (held, verb, *_), verdict in zip(batch, verdicts, strict=True):
            self._drop(held)
            self.settled += 1
            if verdict != "ok":
                self.stale += 1
                said = "agent=%s task=%s attempt=%d %s: %s refused, another attempt owns the task"
                _log.warning(said, self._me, held.id, held.attempt, verdict, verb)
        if not self._room.is_set():
            self._room.set()

    # -- when it is over

    def _settle_idle(self) -> None:
        if all(self._empty) and not self.held and not any(self._unsettled):
            self.idle.set()
        else:
            self.idle.clear()

    async def hand_back(self) -> None:
        """Give back at once what was read and not begun; no attempt is burnt."""
        for shard in range(self._keys.shards):
            while self._backlog[shard]:
                before = len(self._backlog[shard])
                await self._claim(shard, 0, back=True)
                if len(self._backlog[shard]) >= before:
                    break

    async def flushed(self) -> None:
        """Wait until every outcome is settled."""
        while flushers := [flusher for flusher in self._flushers if flusher is not None]:
            await asyncio.wait(flushers)

    def close(self) -> None:
        """Nothing is to be woken any more."""
        if self._waker:
            self._waker.cancel()

    def snapshot(self, shard: int) -> tuple[list[str], list[str], list[tuple[int, str, str, int]]]:
        """(streams, first words of their raw ids, held) for the heartbeat's thread."""
        streams, raws = self.lanes.streams(shard)
        index = {stream: at for at, stream in enumerate(streams, 2)}
        mine = [one for one in list(self.held.values()) if one.shard == shard and one.stream in index]
        return streams, raws, [(index[one.stream], one.entry, one.id, one.attempt) for one in mine]

    def find(self, id: str) -> Held | None:
        """What is held of the task ``id``."""
        return next((held for held in self.held.values() if held.id == id), None)

    @property
    def open_slots(self) -> int:
        """Slots that nothing runs in, also where a claim under way may fill them."""
        return self.free + self._reserved

    @property
    def running(self) -> int:
        """Slots in use."""
        return self.slots - self.free
