"""Waiting without polling: one blocking read per shard serves all who wait in this client.

Answers are pushed into ``{mesh}:replies:<client>`` by the script that settles. Reading goes on from the last entry seen,
so a cut connection loses nothing; whoever could still miss one (a trimmed stream, a server that lost data) is caught by a
slow second look at the records.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from streammesh.errors import MeshError
from streammesh.keys import Keys
from streammesh.store import BLOCK, Store

__all__ = ["Answer", "Replies", "ended"]

#: How often, in seconds, those who still wait look at the record themselves.
SECOND_LOOK = 30.0

_log = logging.getLogger("streammesh.replies")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was pushed: the state, and the result or error where it was short enough to travel along."""

    id: str
    state: str
    value: str | None


class Replies:
    """The waiting room of one client; ``client`` is its word in ``{mesh}:replies:<client>``."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self.client = secrets.token_hex(6)
        self._futures: dict[str, list[asyncio.Future[Answer]]] = {}
        self._watchers: dict[str, Callable[[Answer], None]] = {}
        self._wanted = asyncio.Event()
        #: Answers to requests that nobody waited for any more.
        self.late = 0
        self._loops: list[asyncio.Task[None]] = []
        #: Asks the records of the given ids; set by the room that knows records.
        self.look: Callable[[list[str]], Awaitable[list[Answer]]] | None = None

    def expect(self, id: str) -> asyncio.Future[Answer]:
        """A future for the answer about ``id``. Ask for it before the answer can come."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id, []).append(future)
        self._begin()
        return future

    def _begin(self) -> None:
        self._wanted.set()
        if not self._loops:
            self._loops = [asyncio.create_task(self._read(shard)) for shard in range(self._keys.shards)]
            self._loops.append(asyncio.create_task(self._look_again()))

    def _rest(self) -> None:
        if not self._futures and not self._watchers:
            self._wanted.clear()

    def watch(self, id: str, hear: Callable[[Answer], None]) -> None:
        """Call ``hear`` with every answer about ``id`` until `unwatch`."""
        self._watchers[id] = hear
        self._begin()

    def unwatch(self, id: str, hear: Callable[[Answer], None]) -> None:
        """Let ``hear`` hear no more of ``id``; who watches it since then still does."""
        if self._watchers.get(id) == hear:
            del self._watchers[id]
        self._rest()

    def forget(self, id: str, future: asyncio.Future[Answer]) -> None:
        """Stop waiting."""
        waiting = self._futures.get(id)
        if waiting and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._futures[id]
        self._rest()

    def resolve(self, answer: Answer) -> None:
        """Hand an answer to everybody here who waits for it."""
        hear = self._watchers.get(answer.id)
        if hear:
            hear(answer)
        if answer.state.startswith("nudge"):
            return
        waiting = self._futures.pop(answer.id, ())
        if not waiting and answer.state == "replied":
            self.late += 1
        for future in waiting:
            if not future.done():
                future.set_result(answer)
        self._rest()

    async def _read(self, shard: int) -> None:
        link = self._store.link("replies")
        stream = self._keys.replies(self.client, shard)
        last = "0-0"
        while True:
            await self._wanted.wait()
            try:
                got = await self._store.command(
                    "XREAD",
                    "COUNT",
                    1000,
                    "BLOCK",
                    int(BLOCK * 1000),
                    "STREAMS",
                    stream,
                    last,
                    link=link,
                    timeout=BLOCK + 3,
                )
                if not got:
                    # fakeredis wakes a counted blocking read with nothing in its hands.
                    got = (
                        []
                        if self._store.genuine
                        else await self._store.command("XREAD", "STREAMS", stream, last, link=link)
                    )
                for _, entries in got or ():
                    for entry, flat in entries:
                        last = entry
                        fields = dict(zip(flat[::2], flat[1::2], strict=True))
                        self.resolve(Answer(fields.get("id", ""), fields.get("state", ""), fields.get("value")))
            except MeshError as error:
                _log.warning("replies cannot be read: %s", error)
                await asyncio.sleep(0.5)

    async def _look_again(self) -> None:
        seen: set[str] = set()
        while True:
            await asyncio.sleep(SECOND_LOOK)
            await self._wanted.wait()
            now = set(self._futures)
            ids = sorted(now & seen)
            seen = now
            if ids and self.look:
                try:
                    for answer in await self.look(ids):
                        self.resolve(answer)
                except MeshError as error:
                    _log.warning("waiting tasks cannot be looked at: %s", error)

    async def close(self) -> None:
        await ended(self._loops)
        self._loops.clear()
        for futures in self._futures.values():
            for future in futures:
                future.cancel()
        self._futures.clear()


async def ended(loops: Iterable[asyncio.Task[None]]) -> None:
    """Cancel background loops until they have ended, whatever they raise.

    Once is not always enough: before Python 3.12 `asyncio.wait_for`, which fakeredis reads with, swallows a cancellation
    that comes together with what it waits for.
    """
    left = {loop for loop in loops if not loop.done()}
    while left:
        for loop in left:
            loop.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
