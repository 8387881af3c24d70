"""An agent at work on a mesh: from joining the registry to leaving it.

Loops, each supervised and begun anew when it fails: one claim loop per shard, one that sweeps and fires what is due, one
that listens to control and broadcast; beside them the heartbeat's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from streammesh.activate import Activator
from streammesh.answers import answers
from streammesh.bidding import Bidding, BidFunction
from streammesh.claims import Claims, Held
from streammesh.delegating import Delegating
from streammesh.detecting import Detecting
from streammesh.errors import MeshError
from streammesh.gossiping import Gossiping
from streammesh.handlers import Handler
from streammesh.hearing import MAIL, Hearing
from streammesh.lanes import Lanes, Mail, Wakes
from streammesh.listening import Listening
from streammesh.mesh import Mesh
from streammesh.offering import Offering
from streammesh.overflow import Overflow
from streammesh.peers import Membership, Watchers
from streammesh.perform import Performer
from streammesh.polling import polling
from streammesh.presence import Presence
from streammesh.pulse import Pulse, Renewal
from streammesh.registry import Beat, Card
from streammesh.replies import ended
from streammesh.store import BLOCK
from streammesh.supervised import supervised
from streammesh.sweep import Sweep
from streammesh.tending import Tending
from streammesh.workflow import Workflow

__all__ = ["Serving"]

#: Runs that one agent executes at once; parked ones do not count.
RUNS = 256

_log = logging.getLogger("streammesh.agent")


class Serving:
    """One process's work for an agent. ``id`` is its own once it has joined."""

    def __init__(
        self,
        mesh: Mesh,
        name: str,
        handlers: dict[str, Handler],
        listeners: Mapping[str, Callable[..., Any]],
        workflows: Mapping[str, Workflow],
        bids: Mapping[str, BidFunction],
        voters: Mapping[str, Callable[..., Any]],
        *,
        slots: int,
        lease: float,
        grace: float,
        ready_file: Path | None,
        gossip: bool | None = None,
        watching: Sequence[tuple[frozenset[str], Callable[[Membership], Any]]] = (),
        predicates: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._mesh = mesh
        self._handlers = handlers
        self._workflows = workflows
        self._bidding = Bidding(mesh, self, bids)
        own = {**answers(self, self._card), **listeners}
        #: What others may send; those of votes and auctions come from scripts.
        types, flows, topics = (" ".join(sorted(names)) for names in (own, workflows, voters))
        said: dict[str, str | int] = {"slots": slots, "types": types, "workflows": flows, "topics": topics}
        self.offering = Offering(mesh, name, lease, handlers, said)
        self._listeners = {**self._bidding.listeners(), **polling(self, mesh, voters), **own}
        self._slots = slots
        self._lease = lease
        self._grace = grace
        self._ready_file = ready_file
        self._gossip = gossip
        self._watchers = Watchers(watching)
        self._predicates = predicates or {}
        self._state = "starting"
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.id = ""
        self.claims: Claims
        self.performer: Performer
        self.tending: Tending

    # -- the whole of it

    async def serve(self, *, burst: bool) -> None:
        """Join, work until `stop` (with ``burst``: until nothing waits), drain, leave."""
        mesh = self._mesh
        self.id, now = await mesh.registry.join(self._card())
        self.performer = Performer(mesh, self.id, self._handlers, self._slots)
        self.performer.offset = now - time.monotonic() * 1000
        self.lanes = Lanes(mesh.keys, self.id, tuple(self._handlers))
        self.claims = Claims(mesh, self.id, self.lanes, self._slots, self._lease, self.performer.start)
        self.performer.claims = self.claims
        self.performer.delegating = Delegating(mesh, self.id, self._predicates, self.claims, self.performer.now)
        self.hearing = Hearing(mesh, self.id, self._listeners, self.performer.now)
        self.performer.hear = self.hearing.start
        self.mail = Claims(mesh, self.id, Mail(mesh.keys, self.id), MAIL, self._lease, self._heard)
        self.desks = [self.claims, self.mail]
        self.detecting = Detecting(mesh, self.id, self._lease)
        self.tending = Tending(mesh, self.id, self.desks, self._lease, self.detecting.health)
        self.tending.acts["vote"] = partial(mesh.votes.close, by=self.id)
        self.performer.put_off = self.tending.put_off
        self.tending.acts |= {"schedule": self._start_due, "auction": self._bidding.tend}
        self.tending.mourners.append(self._bidding.bury)
        if self._workflows:
            self.activator = Activator(mesh, self.id, self._workflows, self._slots)
            self.activator.offset = self.performer.offset
            wakes = Wakes(mesh.keys, mesh.replies.client, tuple(self._workflows))
            self.wakes = Claims(mesh, self.id, wakes, RUNS, self._lease, self.activator.start)
            self.activator.claims = self.wakes
            self.desks.append(self.wakes)
        for shard in range(mesh.keys.shards):
            streams = [(mesh.keys.tasks(name, "normal", shard), name) for name in self._handlers]
            streams += [(mesh.keys.runs(name, shard), f"run {name}") for name in self._workflows]
            streams += [(mesh.keys.inbox(self.id, shard), ""), (mesh.keys.mail(self.id, shard), "")]
            await mesh.registry.open_streams(shard, streams, self.id)
        await self.offering.describe()
        listening = Listening(mesh, self.id, self._listeners, self.hearing, self._obey, self._watchers.tell)
        await listening.begin()
        await self.claims.find_lanes()
        self.claims.pause(await mesh.registry.paused(self._handlers))
        self._state = "ready"
        self.presence = Presence(mesh, self.id, lambda: self.tending.live)
        pulse = self._pulse = Pulse(
            mesh.store, mesh.keys, mesh.registry, self.id, self._card, self._snapshot, self._ticked, self._on_pulse,
            self._ready_file,
        )  # fmt: skip
        self.detecting.failures = lambda: pulse.failures
        self.gossiping = Gossiping(mesh, self.id, self._gossip, self.detecting, self._card, pulse.hurry)
        self.offering.begin(self.id, self.lanes, self.claims, self.performer.delegating, pulse)
        pulse.start()
        _log.info("agent=%s ready capabilities=%s slots=%d", self.id, ",".join(self._handlers), self._slots)
        claiming = {
            desk: [
                asyncio.create_task(self._supervised("claim", partial(desk.loop, shard)))
                for shard in range(mesh.keys.shards)
            ]
            for desk in self.desks
        }
        others = [
            asyncio.create_task(self._supervised("tend", self.tending.loop)),
            asyncio.create_task(self._supervised("listen", listening.loop)),
            asyncio.create_task(self._supervised("detect", self.detecting.loop)),
            asyncio.create_task(self._supervised("gossip", self.gossiping.speak)),
            asyncio.create_task(self._supervised("hear gossip", self.gossiping.hear)),
            asyncio.create_task(self._supervised("watch", self._watchers.loop)),
            asyncio.create_task(self._supervised("look", self.presence.loop)),
            asyncio.create_task(self._supervised("overflow", Overflow(mesh, self.id, self.claims).loop)),
        ]
        try:
            if burst:
                await self._until_idle()
            else:
                await self._stop.wait()
        finally:
            self._state = "draining"
            pulse.hurry()
            await self._drain(claiming)
            await ended(others)
            mesh.roster.unfollow()
            pulse.stop()
            self.offering.end()
            await asyncio.to_thread(pulse.join, 5.0)
            await self._leave()
            for desk in self.desks:
                desk.close()
            if self._workflows:
                self.activator.close()
            if self.performer.horses is not None:
                await self.performer.horses.close()
            self.performer.close()
            self.hearing.close()
            self._state = "left"
            done = self.claims
            _log.info("agent=%s left claimed=%d settled=%d stale=%d", self.id, done.claimed, done.settled, done.stale)

    def _heard(self, held: Held) -> None:
        self.hearing.start(held, self.mail)

    def _ticked(self) -> float:
        """When the loops that find and take over work last moved: a process in which one hangs is not alive."""
        return min(self.tending.tick, *(desk.ticked() for desk in self.desks))

    def _snapshot(self, shard: int) -> tuple[list[str], list[str], list[tuple[int, str, str, int]]]:
        streams: list[str] = []
        raws: list[str] = []
        held: list[tuple[int, str, str, int]] = []
        for desk in self.desks:
            more, words, some = desk.snapshot(shard)
            held += [(at + len(streams), entry, id, attempt) for at, entry, id, attempt in some]
            streams += more
            raws += words
        return streams, raws, held

    def stop(self) -> None:
        """Begin to drain; returns at once."""
        self._stop.set()

    async def _until_idle(self) -> None:
        """Until a claim found nothing, nothing is held and nothing is unsettled; or until stopped."""
        stopped = asyncio.create_task(self._stop.wait())
        try:
            while not self._stop.is_set():
                idle = asyncio.create_task(self._idle())
                await asyncio.wait({idle, stopped}, return_when=asyncio.FIRST_COMPLETED)
                idle.cancel()
                if self.claims.idle.is_set() and self.mail.idle.is_set():
                    return
        finally:
            stopped.cancel()

    async def _idle(self) -> None:
        for desk in (self.claims, self.mail):
            await desk.idle.wait()

    async def _drain(self, claiming: Mapping[Claims, list[asyncio.Task[None]]]) -> None:
        try:
            # Work first: while it is being finished, the agent goes on hearing messages.
            await self._halt([desk for desk in self.desks if desk is not self.mail], claiming)
            if self._workflows:
                # A run goes on elsewhere from its journal: there is nothing to finish here.
                for held in list(self.wakes.held.values()):
                    if held.work and not held.work.done():
                        held.stopping = "release"
                        held.work.cancel()
            until = self._loop.time() + self._grace
            await self._finish(self.claims, self._grace)
            await self._halt([self.mail], claiming)
            await self._finish(self.mail, max(until - self._loop.time(), min(self._grace, 1.0)))
            for desk in reversed(self.desks):
                await asyncio.sleep(0)
                await asyncio.wait_for(desk.flushed(), timeout=max(5.0, self._lease))
        except (MeshError, TimeoutError) as error:
            _log.error("agent=%s could not hand everything back, leases run out by themselves: %s", self.id, error)

    async def _halt(self, desks: list[Claims], claiming: Mapping[Claims, list[asyncio.Task[None]]]) -> None:
        """Claim no more, and give back what has not begun."""
        loops = [loop for desk in desks for loop in claiming[desk]]
        for desk in desks:
            desk.draining = True
            desk.wake()
        await asyncio.wait(loops, timeout=BLOCK + 1)
        for loop in loops:
            loop.cancel()
        for desk in desks:
            await desk.hand_back()

    async def _finish(self, desk: Claims, grace: float) -> None:
        """Let what runs end within ``grace`` seconds, and stop the rest."""
        running = [held.work for held in desk.held.values() if held.work and not held.work.done()]
        if running:
            what = "messages" if desk is self.mail else "tasks"
            _log.info("agent=%s draining: %d %s have %.0f s", self.id, len(running), what, grace)
            await asyncio.wait(running, timeout=grace)
            late = [held for held in desk.held.values() if held.work and not held.work.done()]
            for held in late:
                held.stopping = "release"
                assert held.work
                held.work.cancel()
            if late:
                _log.warning("agent=%s %d %s did not finish in time and are handed back", self.id, len(late), what)
                await asyncio.wait([held.work for held in late if held.work], timeout=5.0)

    async def _leave(self) -> None:
        """Out of the registry first, so that nobody sends any more; then what is still in the inbox moves on."""
        try:
            async with asyncio.timeout(max(5.0, self._lease)):
                await self._mesh.registry.leave(self.id, self._card())
                sweep = Sweep(self._mesh.store, self._mesh.keys, self._mesh.registry)
                offered = await self._mesh.registry.offered()
                for shard in range(self._mesh.keys.shards):
                    await sweep.drain(shard, self.id, offered)
        except (MeshError, TimeoutError) as error:
            _log.warning("agent=%s left without goodbye: %s", self.id, error)

    async def _start_due(self, name: str) -> None:
        """What a schedule starts now; its next occurrence may be near."""
        wait = await self._mesh.schedules.fire(name)
        if wait is not None:
            self.tending.put_off(wait)

    def _card(self) -> Card:
        busy = self.claims.running if hasattr(self, "claims") else 0
        return self.offering.card(self._state, busy, self.gossiping.root if hasattr(self, "gossiping") else "")

    # -- loops

    async def _supervised(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        await supervised(self.id, name, loop)

    async def _obey(self, act: Mapping[str, str]) -> None:
        match act.get("type"):
            case "cancel" if act.get("agent") == self.id:
                self._cancel(act.get("task", ""))
            case "drain" if act.get("agent") == self.id:
                _log.info("agent=%s asked to drain by %s", self.id, act.get("by"))
                self.stop()
            case "clock":
                # In a mesh under test: it is later than we think.
                self._pulse.hurry()
                self.tending.put_off(0)
            case "vanished" | "beat":
                # Whoever was taken for gone, and is not, is back with its beat.
                self._pulse.hurry()
                self.tending.hurry()
            case "pause" | "resume":
                capability = act.get("capability", "")
                paused = await self._mesh.store.command("HGET", self._mesh.keys.cap(capability), "paused")
                self.claims.pause(self.lanes.paused | {capability} if paused else self.lanes.paused - {capability})

    # -- what the heartbeat brings

    def _on_pulse(self, beat: Beat, renewals: list[Renewal]) -> None:
        """Runs on the heartbeat's thread."""
        offset = beat.now_ms - time.monotonic() * 1000
        try:
            self._loop.call_soon_threadsafe(self._take_pulse, beat, renewals, offset)
        except RuntimeError:
            # The loop is closed: the process ends.
            return

    def _take_pulse(self, beat: Beat, renewals: list[Renewal], offset: float) -> None:
        self.performer.offset = offset
        if self._workflows:
            self.activator.offset = offset
        if beat.word in ("taken", "evicted"):
            why = "its id belongs to another process now (the server lost data)"
            why = why if beat.word == "taken" else "an operator took it out"
            _log.critical("agent=%s %s; stopping, start it anew", self.id, why)
            self.stop()
            return
        if beat.word == "back":
            _log.warning("agent=%s was out of the registry and is back in", self.id)
        self.claims.pause(beat.paused)
        self.offering.beaten()
        for renewal in renewals:
            for id in renewal.cancel:
                self._cancel(id)
            for one in renewal.lost:
                id, _, attempt = one.rpartition(" ")
                self._lose(id, int(attempt))
            if renewal.strays:
                _log.warning("agent=%s handed back %d entries whose delivery was lost", self.id, renewal.strays)

    def _cancel(self, id: str) -> None:
        held = self.claims.find(id)
        if held and held.work and not held.stopping:
            held.stopping = "cancel"
            context = self.performer.contexts.get(id)
            if context:
                context.cancel_requested = True
            held.work.cancel()

    def _lose(self, id: str, attempt: int) -> None:
        held = next((found for desk in self.desks if (found := desk.find(id))), None)
        # A task that has just been settled is not lost: it is on its way out.
        if (
            held
            and held.attempt == attempt
            and held.work
            and not held.work.done()
            and not held.stopping
            and not held.settling
        ):
            _log.warning(
                "agent=%s task=%s attempt=%d is lost to another attempt, stopping it", self.id, id, held.attempt
            )
            held.stopping = "lost"
            held.work.cancel()
