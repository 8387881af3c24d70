"""What an agent hears besides its work: operators' acts, broadcast messages, who comes and goes, from the moment it joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Mapping

from streammesh import codec
from streammesh.errors import BoundaryError, BroadcastGap, MeshError
from streammesh.handlers import told
from streammesh.hearing import Hearing
from streammesh.mesh import Mesh
from streammesh.peers import Membership
from streammesh.store import BLOCK

__all__ = ["Listening"]

_log = logging.getLogger("streammesh.agent")


class Listening:
    """Reads control and broadcast for the agent ``me``; ``obey`` gets each act, ``watch`` who comes and goes, ``hearing`` each message it has a handler for."""

    def __init__(
        self,
        mesh: Mesh,
        me: str,
        listeners: Container[str],
        hearing: Hearing,
        obey: Callable[[Mapping[str, str]], Awaitable[None]],
        watch: Callable[[Membership], None],
    ) -> None:
        self._mesh = mesh
        self._me = me
        self._listeners = listeners
        self._hearing = hearing
        self._obey = obey
        self._watch = watch
        self._cursors = ["0-0", "0-0", "0-0"]
        #: The number of the broadcast that was read last; -1 where it is not known.
        self._number = -1
        self._heard: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """What comes from now on is for us."""
        keys = self._mesh.keys
        self._cursors = [await self._last(stream) for stream in (keys.control, keys.broadcast, keys.members)]
        at = self._cursors[1]
        last = await self._mesh.store.command("XRANGE", keys.broadcast, at, at)
        if last:
            self._number = int(dict(zip(last[0][1][::2], last[0][1][1::2], strict=True)).get("number", -1))
        await self._mesh.roster.follow(self._cursors[2])

    async def _last(self, stream: str) -> str:
        """The newest entry's id: what comes after it is for us."""
        newest = await self._mesh.store.command("XREVRANGE", stream, "+", "-", "COUNT", 1)
        return str(newest[0][0]) if newest else "0-0"

    async def loop(self) -> None:
        """Read for ever. Supervised by the agent: after an error it is begun anew, where it had come to."""
        store, keys, cursors = self._mesh.store, self._mesh.keys, self._cursors
        link = store.link("listen")
        names = (keys.control, keys.broadcast, keys.members)
        while True:
            got = await store.command(
                "XREAD",
                "COUNT",
                100,
                "BLOCK",
                int(BLOCK * 1000),
                "STREAMS",
                *names,
                *cursors,
                link=link,
                timeout=BLOCK + 3,
            )
            if not got and not store.genuine:
                got = await store.command("XREAD", "COUNT", 100, "STREAMS", *names, *cursors, link=link)
            for stream, entries in got or ():
                which = names.index(stream)
                for entry, flat in entries:
                    fields = dict(zip(flat[::2], flat[1::2], strict=True))
                    if which == 0:
                        await self._obey(fields)
                    elif which == 1:
                        self._check_gap(fields, entry)
                        self._hear(fields)
                    else:
                        self._watch(self._mesh.roster.take(entry, fields))
                    cursors[which] = entry

    def _check_gap(self, fields: dict[str, str], entry: str) -> None:
        """A reader that fell behind what is kept of the broadcasts is told so, by a message of type `broadcast.gap`."""
        number = int(fields.pop("number", "") or -1)
        lost = number - self._number - 1
        if number >= 0 and lost > 0 and self._number >= 0:
            gap = BroadcastGap(
                f"{lost} broadcasts were dropped before {self._me} read them; the first one that is kept is {entry}",
                first=entry, lost=lost,
            )  # fmt: skip
            _log.warning("agent=%s %s", self._me, gap)
            said = {"lost": lost, "after": self._cursors[1], "first": entry, "error": str(gap)}
            self._hear({"type": "broadcast.gap", "payload": codec.encode(said).decode(), "id": f"gap-{entry}"})
        self._number = number if number >= 0 else self._number

    def _hear(self, fields: Mapping[str, str]) -> None:
        if fields.get("type") not in self._listeners or fields.get("source") == self._me:
            return

        async def hear() -> None:
            why = ""
            try:
                await self._hearing.hear(fields)
            except BoundaryError as error:
                why = told(error)
                _log.error("agent=%s broadcast %s failed: %s", self._me, fields.get("type"), error)
            except Exception as error:
                why = told(error)
                _log.exception("agent=%s broadcast %s failed", self._me, fields.get("type"))
            if fields.get("correlation"):
                try:
                    await self._mesh.messages.heard(fields["correlation"], fields.get("id", ""), self._me, why)
                except MeshError as error:
                    _log.warning("agent=%s broadcast %s is not in its story: %s", self._me, fields.get("id"), error)

        heard = asyncio.create_task(hear())
        self._heard.add(heard)
        heard.add_done_callback(self._heard.discard)
