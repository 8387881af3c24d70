"""Noticing within about a second that an agent is gone, where the server may be asked who is connected.

An agent names its connections after itself. One that is killed leaves none behind, and CLIENT LIST shows it long before its
lease has ended; then its work may move at once. Agents look in turns, about two looks a second for the whole mesh. Nobody is
buried who was never seen connected to the server since it began, who has beaten since he was first missed, or who was missed
less than three times running; and nobody misses anybody whose own connection has just been made. A mistake costs an attempt and no more: the fences hold, and whoever is alive is
back with its next beat. Where CLIENT LIST is refused, or names do not come through, leases decide alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from typing import Any

from streammesh.errors import MeshError, StoreUnavailable
from streammesh.mesh import Mesh

__all__ = ["Presence"]

#: Seconds between two looks of the mesh, and between a look that misses somebody and those that confirm it.
PACE, CONFIRM = 0.5, (0.2, 0.25)
#: A look that took longer than this, in seconds, says more about the server than about anybody connected to it.
SLOW = 0.25
#: How long, in seconds, our own connection must have held before we miss anybody.
STEADY = 2.0
#: How long, in seconds, it is remembered who was seen.
KEPT = 60.0

_log = logging.getLogger("streammesh.agent")


class Presence:
    """The looks of the agent ``me``; ``live()`` says how many agents there are."""

    def __init__(self, mesh: Mesh, me: str, live: Callable[[], int]) -> None:
        self._mesh = mesh
        self._me = me
        self._live = live
        self._link = mesh.store.link("look", mesh.keys.owner(me))
        self._named = re.compile(rf" name={re.escape(mesh.keys.owner(''))}([^:\s]+):")
        self._pace = PACE
        #: The key of those who were seen connected to this server since it began; since when, in monotonic seconds, we are, and
        #: when we last wrote it.
        self._seen = ""
        self._since = self._noted = 0.0
        #: Looks so far, and agents that they found gone.
        self.looks = self.found = 0

    async def loop(self) -> None:
        """Look in turns with the others; returns where it is of no use."""
        store, turn = self._mesh.store, self._mesh.keys.look
        while store.genuine:
            live = self._live()
            try:
                if self._link.client_id is None:
                    await self._connect()
                # Each of many asks for its turn less often.
                await asyncio.sleep(self._pace * max(1.0, live / 3) * random.uniform(0.4, 0.6))
                if live > 1 and await store.command("SET", turn, self._me, "NX", "PX", int(self._pace * 900)):
                    await self._look()
            except StoreUnavailable:
                await asyncio.sleep(self._pace)
            except MeshError as error:
                _log.info("agent=%s the server does not say who is connected, leases decide: %s", self._me, error)
                return

    async def _ask(self, *words: object) -> Any:
        return await self._mesh.store.command(*words, link=self._link, patient=False)

    async def _connect(self) -> None:
        said: str = await self._ask("INFO", "server")
        found = re.search(r"^run_id:(\w{8})", said, re.MULTILINE)
        self._seen = self._mesh.keys.seen(found[1] if found else "")
        self._link.client_id = int(await self._ask("CLIENT", "ID"))
        self._since = time.monotonic()

    async def _look(self) -> None:
        missing = await self._missing()
        for pause in CONFIRM:
            if not missing:
                return
            await asyncio.sleep(pause)
            again = await self._missing()
            missing = {id: beat for id, beat in missing.items() if again.get(id) == beat}
        if missing:
            dead = await self._mesh.registry.vanish(missing)
            self.found += len(dead)
            for id in dead:
                _log.warning("agent=%s found %s gone: no connection is left of it", self._me, id)

    async def _missing(self) -> dict[str, str]:
        """Agents that were connected to this very server, are registered, and have no connection: with their last beats."""
        began = time.monotonic()
        scored = await self._ask("ZRANGE", self._mesh.keys.agents, 0, -1, "WITHSCORES")
        seen = set(await self._ask("SMEMBERS", self._seen))
        said: str = await self._ask("CLIENT", "LIST", "TYPE", "normal")
        took = time.monotonic() - began
        self.looks += 1
        # The server writes down about a thousand connections in 2 ms: however many there are, looking is some percent of its time.
        self._pace = max(PACE, said.count("\n") * 75e-6)
        here = set(self._named.findall(said))
        beats = dict(zip(scored[::2], scored[1::2], strict=True))
        if not here <= seen or began - self._noted > KEPT / 4:
            self._noted = began
            # In one write: were we killed between the two, the set would stay for ever.
            await self._mesh.store.commands(
                [
                    ("SADD", self._seen, *(sorted(here & beats.keys()) or [self._me])),
                    ("PEXPIRE", self._seen, int(KEPT * 1000)),
                ]
            )
        # What has just broken our own connection may have broken those of others: they come back.
        if took > SLOW or self._link.client_id is None or began - self._since < STEADY:
            return {}
        gone = {id: beat for id, beat in beats.items() if id in seen and id not in here}
        # Most of them at once: it is rather the line, and leases decide.
        return {} if len(gone) > 2 and 2 * len(gone) > len(beats) else gone
