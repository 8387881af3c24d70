"""Topics: messages for whoever subscribes, kept a while in a stream of their own, whoever reads them or not.

Publishing is one durable write, whose outcome no subscriber can change. A subscriber without a group sees every message, by a
cursor of its own; the members of a group share them: each message goes to one of them, stays pending until that one has gone
on to the next, and moves to another member when its member did not renew it for a lease. About `KEPT` messages of each topic
are kept. Whoever falls behind that gets a BroadcastGap, never silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from streammesh.envelope import Message
from streammesh.errors import BroadcastGap, ConfigError, InvalidPayload, MeshError
from streammesh.keys import Keys, check_name
from streammesh.messages import Messages
from streammesh.record import Lineage, lineage
from streammesh.store import BLOCK, Link, Store

__all__ = ["KEPT", "Subscription", "Topics"]

#: About how many messages of a topic are kept.
KEPT = 10_000
#: Deliveries of one message after which it is a dead letter: so many members died, or gave up, over it.
DELIVERIES = 3
#: How long, in seconds, a subscriber without a group counts as one since it was last seen.
COUNTS = 30.0

_log = logging.getLogger("streammesh.topics")


class Topics:
    """The room of topics in one mesh."""

    def __init__(self, store: Store, keys: Keys, messages: Messages) -> None:
        self.store = store
        self.keys = keys
        self.messages = messages

    async def names(self) -> list[str]:
        """The topics that were ever published on."""
        known = await self.store.command("HKEYS", self.keys.topics)
        return sorted(name for name in known if name != "*" and " " not in name)

    async def publish(self, topic: str, payload: Any, *, require_subscriber: bool = False, id: str = "") -> str:
        """Publish on ``topic``; returns the message's id. Atomic, safe to repeat; errors as in `Messages.publish`."""
        mode = "require" if require_subscriber else ""
        extra = ("id", id) if id else ()
        where = f"topic {check_name(topic, 'topic')}"
        return await self.messages.publish(where, topic, payload, kept=KEPT, mode=mode, extra=extra)

    async def open(self, topic: str, group: str, who: str, start: str) -> tuple[str, str, str]:
        """'ok' or 'gap'; the cursor to begin at; the number of the last message before it, or the first entry kept."""
        word, cursor, before = await self.store.run(
            "topic_open", [self.keys.prefix()], [topic, group, who, start, int(COUNTS * 1000)]
        )
        return word, cursor, before

    async def take(
        self, topic: str, group: str, who: str, count: int, lease: float, held: list[str]
    ) -> tuple[list[str], str, int, str, list[tuple[str, int, list[str]]]]:
        """Renew what ``who`` holds, and take up to ``count`` more. See the script for what is returned."""
        lost, newest, missed, first, items = await self.store.run(
            "topic_take", [self.keys.prefix()], [topic, group, who, count, int(lease * 1000), DELIVERIES, *held]
        )
        return lost, newest, int(missed), first, [(entry, int(times), flat) for entry, times, flat in items]

    async def done(self, topic: str, group: str, who: str, entry: str, why: str = "") -> bool:
        """Acknowledge a message, or with ``why`` make it a dead letter. False when another member has it now."""
        args = [topic, group, who, entry, "dead" if why else "replied", why]
        return bool(await self.store.run("topic_done", [self.keys.prefix()], args) == "ok")

    async def leave(self, topic: str, group: str, who: str) -> bool:
        """End a subscription; what is still pending may be taken by others at once. False when something is left."""
        return bool(await self.store.run("topic_leave", [self.keys.prefix()], [topic, group, who]) == "ok")

    def subscribe(
        self, topic: str, group: str | None = None, start: str = "tail", *, lease: float = 10.0, prefetch: int = 1, mesh: Any = None, who: str = "",
        by_hand: bool = False,
    ) -> Subscription:  # fmt: skip
        """A subscription, not yet begun. ``who`` names the member; ``by_hand``: only ``message.done()`` acknowledges. Raises ConfigError."""
        check_name(topic, "topic")
        if group is not None:
            check_name(group, "group")
        if start not in ("tail", "head") and not start.replace("-", "", 1).isdecimal():
            raise ConfigError(
                f"start={start!r} is not usable: expected 'tail', 'head', or an entry's id such as message.entry"
            )
        if not 0.1 <= lease < 86_400 or not 1 <= prefetch <= 1000:
            raise ConfigError(
                f"lease={lease!r}, prefetch={prefetch!r} are not usable: expected 0.1 s to a day, and 1 to 1000"
            )
        who = who or f"{self.messages.source}.{secrets.token_hex(3)}"
        return Subscription(self, topic, group or "", start, lease, prefetch, mesh, who, by_hand)


class Subscription:
    """Messages of one topic, as an async iterator: ``async with mesh.subscribe("news") as messages: async for message in messages: …``.

    The body's errors end the loop, and leave a message of a group to another member; what it sends or enqueues belongs to the
    message's flow. Iterating raises BroadcastGap where messages were dropped unread; iterate again to go on after the gap.
    For one task at a time. ``cursor`` is the entry of the message that came last, for ``start=`` of a later one.
    """

    def __init__(
        self, topics: Topics, topic: str, group: str, start: str, lease: float, prefetch: int, mesh: Any, who: str, by_hand: bool
    ) -> None:  # fmt: skip
        self.topic = topic
        self.group = group
        #: What this subscriber is called: its consumer in the group.
        self.who = who
        self.cursor = start
        #: How many messages another member took over while they were handled here: they were handled twice.
        self.lost = 0
        self._topics = topics
        self._store = topics.store
        self._lease = lease
        self._prefetch = prefetch
        self._mesh = mesh
        self._by_hand = by_hand
        self._number = -1
        self._ready: deque[Message | BroadcastGap] = deque()
        self._held: dict[str, None] = {}
        self._current: Message | None = None
        self._stopping = asyncio.Event()
        self._link: Link
        self._keeper: asyncio.Task[None] | None = None
        self._outer: Lineage | None = None

    async def __aenter__(self) -> Self:
        if self._keeper is not None:
            raise ConfigError("this subscription was begun before; subscribe anew")
        self._outer = lineage.get()
        word, cursor, before = await self._topics.open(self.topic, self.group, self.who, self.cursor)
        self._at = self.cursor = cursor
        if word == "gap":
            self._ready.append(self._gap(None, before))
        else:
            self._number = int(before)
        self._link = self._store.link("topic")
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is in flight is finished, or with an error left to another member; then the subscription is no more."""
        lineage.set(self._outer)
        self.stop()
        assert self._keeper is not None
        try:
            if kind is None:
                await self._finish()
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            if not await self._topics.leave(self.topic, self.group, self.who):
                _log.warning("subscriber=%s left messages of %s that only its lease gives back", self.who, self.topic)
        except MeshError as failure:
            _log.warning("subscriber=%s left %s without goodbye: %s", self.who, self.topic, failure)
        finally:
            self._keeper.cancel()
            await self._store.drop(self._link)

    def stop(self) -> None:
        """End the iteration after the message that is being handled. Returns at once."""
        self._stopping.set()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        if self._keeper is None:
            raise ConfigError("the subscription has not begun; use `async with mesh.subscribe(…) as messages`")
        await self._finish()
        lineage.set(self._outer)
        while not self._stopping.is_set():
            if self._ready:
                one = self._ready.popleft()
                if isinstance(one, BroadcastGap):
                    raise one
                self.cursor = one.entry
                if not self._by_hand:
                    self._current = one
                    lineage.set(one.line)
                return one
            await (self._take() if self.group else self._read())
        raise StopAsyncIteration

    async def _finish(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            await self._done(current.entry)

    async def _done(self, entry: str, why: str = "") -> None:
        if not self.group or entry not in self._held:
            return
        if not await self._topics.done(self.topic, self.group, self.who, entry, why):
            self.lost += 1
            _log.warning(
                "subscriber=%s handled %s of %s for longer than its lease, and another one has it",
                self.who, entry, self.topic,
            )  # fmt: skip
        self._held.pop(entry, None)

    # -- by group

    async def _take(self) -> None:
        held = list(self._held)
        _, newest, missed, first, items = await self._topics.take(
            self.topic, self.group, self.who, self._prefetch, self._lease, held
        )
        if missed:
            self._ready.append(self._gap(missed, first))
        for entry, times, flat in items:
            self._held[entry] = None
            try:
                self._ready.append(self._message(entry, flat, times))
            except InvalidPayload as error:
                await self._done(entry, str(error))
        if not items:
            await self._wait(newest, min(BLOCK, self._lease / 3))

    # -- by cursor

    async def _read(self) -> None:
        for entry, flat in await self._wait(self._at, BLOCK):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            number = int(fields.get("number") or -1)
            if number > self._number + 1 and self._number >= 0:
                self._ready.append(self._gap(number - self._number - 1, entry))
            self._number = number if number >= 0 else self._number
            self._at = entry
            try:
                self._ready.append(self._message(entry, flat))
            except InvalidPayload as error:
                _log.error("subscriber=%s cannot read %s of %s: %s", self.who, entry, self.topic, error)

    # -- both

    async def _wait(self, after: str, seconds: float) -> list[tuple[str, list[str]]]:
        """What comes after an entry, within so many seconds, or until stopped."""
        command = ("XREAD", "COUNT", 100, "BLOCK", max(1, int(seconds * 1000)), "STREAMS")
        stream = self._topics.keys.topic(self.topic)
        read = asyncio.ensure_future(self._store.command(*command, stream, after, link=self._link, timeout=seconds + 3))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({read, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                return []
            got = read.result()
            if not got and not self._store.genuine:
                got = await self._store.command("XREAD", "COUNT", 100, "STREAMS", stream, after, link=self._link)
            return [(entry, flat) for entry, flat in got[0][1]] if got else []
        finally:
            for one in (read, stopped):
                one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({read, stopped})

    def _message(self, entry: str, flat: list[str], delivery: int = 1) -> Message:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        fields.pop("number", None)
        # An event is not less true when it is late: its deadline, if any, is not passed on.
        line = replace(Lineage.of(fields, fields.get("id") or entry, self._topics.messages.source), deadline=None)
        message = Message.of(fields, line, self._mesh, entry)

        async def settle(why: str = "") -> None:
            await self._done(entry, why)

        return replace(
            message, id=message.id or entry, type=message.type or self.topic, delivery=delivery, settle=settle, line=line,
        )  # fmt: skip

    def _gap(self, lost: int | None, first: str) -> BroadcastGap:
        many = f"{lost} messages" if lost is not None else "messages"
        return BroadcastGap(
            f"{many} of topic {self.topic} were dropped before {self.group or self.who} read them: about {KEPT} are kept, "
            f"the first one is {first}",
            first=first, lost=lost,
        )  # fmt: skip

    async def _keep(self) -> None:
        """Renews what is held, and says that we are here, while the subscription lasts."""
        while True:
            await asyncio.sleep(self._lease / 3 if self.group else COUNTS / 3)
            try:
                if not self.group:
                    await self._topics.open(self.topic, "", self.who, "")
                elif self._held:
                    await self._topics.take(self.topic, self.group, self.who, 0, self._lease, list(self._held))
            except MeshError as error:
                _log.warning("subscriber=%s could not renew %s: %s", self.who, self.topic, error)
