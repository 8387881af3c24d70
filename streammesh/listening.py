"""What an agent hears besides its work: operators' acts, broadcast messages, who comes and goes, from the moment it joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Mapping

from streammesh.errors import BoundaryError
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
        self._heard: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """What comes from now on is for us."""
        keys = self._mesh.keys
        self._cursors = [await self._last(stream) for stream in (keys.control, keys.broadcast, keys.members)]
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
                if which == 1 and len(entries) >= 100:
                    await self._check_gap(cursors[1])
                for entry, flat in entries:
                    fields = dict(zip(flat[::2], flat[1::2], strict=True))
                    if which == 0:
                        await self._obey(fields)
                    elif which == 1:
                        self._hear(fields)
                    else:
                        self._watch(self._mesh.roster.take(entry, fields))
                    cursors[which] = entry

    async def _check_gap(self, cursor: str) -> None:
        """A reader that fell behind the retention of the broadcast is told so."""
        first = await self._mesh.store.command("XRANGE", self._mesh.keys.broadcast, "-", "+", "COUNT", 1)
        if cursor != "0-0" and first and _order(first[0][0]) > _order(cursor):
            kept = await self._mesh.store.command("XRANGE", self._mesh.keys.broadcast, cursor, cursor)
            if not kept:
                _log.warning("agent=%s broadcast messages after %s may have been trimmed unread", self._me, cursor)
                self._hear(
                    {
                        "type": "broadcast.gap",
                        "payload": f'{{"after":"{cursor}","first":"{first[0][0]}"}}',
                        "id": cursor,
                    }
                )

    def _hear(self, fields: Mapping[str, str]) -> None:
        if fields.get("type") not in self._listeners or fields.get("source") == self._me:
            return

        async def hear() -> None:
            try:
                await self._hearing.hear(fields)
            except BoundaryError as error:
                _log.error("agent=%s broadcast %s failed: %s", self._me, fields.get("type"), error)
            except Exception:
                _log.exception("agent=%s broadcast %s failed", self._me, fields.get("type"))

        heard = asyncio.create_task(hear())
        self._heard.add(heard)
        heard.add_done_callback(self._heard.discard)


def _order(entry: str) -> tuple[int, int]:
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)
