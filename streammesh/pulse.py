"""The heartbeat: beats and renewals from a thread and a connection of their own.

A handler that keeps the event loop busy must not make a live agent look dead, so nothing here touches the loop but to
hand over what a beat brought back. A loop that stands still for `FROZEN` leases stops the beats: then the agent is as
good as dead, and its work should move.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streammesh.errors import MeshError
from streammesh.keys import Keys
from streammesh.registry import Beat, Card, Registry
from streammesh.store import Store, ThreadLink
from streammesh.watchdog import Watchdog

__all__ = ["Pulse", "Renewal"]

#: How many leases the event loop may stand still before the heart stops.
FROZEN = 6
#: How often, in seconds, the connection is looked at between two beats.
WATCH = 0.2

_log = logging.getLogger("streammesh.agent")


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal brought back: '<id> <attempt>' of what is no longer ours, ids to be cancelled, strays handed back."""

    lost: tuple[str, ...]
    cancel: tuple[str, ...]
    strays: int


class Pulse(threading.Thread):
    """Beats every quarter of a lease until stopped.

    ``snapshot(shard)`` gives (streams, first words of their raw ids, held), held as (stream index from 2, entry, id, attempt); ``tick()`` the
    monotonic time at which the loop last moved; ``deliver`` is called on this thread with each beat and its renewals.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        registry: Registry,
        id: str,
        card: Callable[[], Card],
        snapshot: Callable[[int], tuple[Sequence[str], Sequence[str], Sequence[tuple[int, str, str, int]]]],
        tick: Callable[[], float],
        deliver: Callable[[Beat, list[Renewal]], None],
        ready_file: Path | None = None,
    ) -> None:
        super().__init__(name=f"pulse {id}", daemon=True)
        self._store = store
        self._keys = keys
        self._registry = registry
        self._id = id
        self._card = card
        self._snapshot = snapshot
        self._tick = tick
        self._deliver = deliver
        self._ready_file = ready_file
        self._soon = threading.Event()
        # Made on the thread of the event loop.
        self._watchdog = Watchdog(threading.get_ident())
        self._ended = False
        #: Beats that failed so far.
        self.failures = 0
        self._link: ThreadLink | None = None

    def hurry(self) -> None:
        """Beat now rather than in its turn (the state changed)."""
        self._soon.set()

    def stop(self) -> None:
        """Stop beating; returns at once, join to wait."""
        self._ended = True
        self._soon.set()

    def run(self) -> None:
        failing = False
        while not self._ended:
            card = self._card()
            try:
                if time.monotonic() - self._tick() > FROZEN * card.lease:
                    _log.critical(
                        "agent=%s the event loop has stood still for %d leases: no more beats", self._id, FROZEN
                    )
                else:
                    self._beat(card)
                failing = False
            except MeshError as error:
                if not failing:
                    _log.warning("agent=%s no beat: %s", self._id, error)
                failing = True
                self.failures += 1
            except Exception:
                _log.exception("agent=%s the heartbeat stumbled", self._id)
            self._rest(min(1.0, card.lease / 8) if failing else card.lease / 4)
        if self._link:
            self._link.close()
        self._write_ready("")

    def _rest(self, seconds: float) -> None:
        """Wait for the next beat, a hurry, or the end of the connection: an agent without one looks as if it were gone."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._soon.wait(min(WATCH, left)):
            found = self._watchdog.look(time.monotonic())
            if found:
                _log.warning(
                    "agent=%s run=%s its workflow computes without giving way, and nothing else moves here; do that in run.step(…) [%s]",
                    self._id, *found,
                )  # fmt: skip
            if self._link and self._link.broken():
                break
        self._soon.clear()

    def _beat(self, card: Card) -> None:
        link = self._link = self._link or ThreadLink(self._store, "beat", self._keys.owner(self._id))
        beat = self._registry.beat(link, self._id, card)
        renewals = [self._renew(link, shard, card) for shard in range(self._keys.shards)]
        self._deliver(beat, renewals)
        moving = time.monotonic() - self._tick() < max(10.0, card.lease)
        self._write_ready(str(card.fields.get("state", "")) if moving else "")

    def _renew(self, link: ThreadLink, shard: int, card: Card) -> Renewal:
        streams, raws, held = self._snapshot(shard)
        args: list[Any] = [self._id, int(card.lease * 500), len(held)]
        for item in held:
            args += item
        args += raws
        lost, cancel, strays = link.run("task_renew", [self._keys.prefix(shard), *streams], args)
        return Renewal(tuple(lost), tuple(cancel), int(strays))

    def _write_ready(self, state: str) -> None:
        """The readiness of this process for a health check that must not load a Redis client."""
        if self._ready_file is None:
            return
        if state != "ready":
            self._ready_file.unlink(missing_ok=True)
            return
        fresh = self._ready_file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"state": state, "agent": self._id, "at": time.time()}) + "\n", encoding="utf-8")
        fresh.replace(self._ready_file)
