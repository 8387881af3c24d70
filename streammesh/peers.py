"""Who else is here, from memory: a picture of the live agents that costs no read to look at.

An agent keeps the picture by the members feed, which it reads together with its other news; a client reads it when it is
first asked for. How busy everybody is comes by one read for all agents, behind the caller's back, only while somebody asks.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streammesh.cards import Skill, read_skills
from streammesh.errors import MeshError
from streammesh.keys import Keys
from streammesh.store import BLOCK, Store

__all__ = ["Membership", "PeerInfo", "Roster", "Watchers", "why_none"]

#: A picture older than this, in seconds, is renewed behind the back of whoever looks at it.
STALE = 1.0
#: A client that does not follow the feed waits for a new picture when its own is older than this, in seconds.
OUTDATED = 5.0
#: The share of its lease after which an agent that has not beaten is suspect: it beats four times in one.
SUSPECT = 0.75

_log = logging.getLogger("streammesh.peers")


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A live agent as it was when the picture was taken.

    ``state`` is its own word (starting, ready, draining), ``status`` that of the others: alive, or suspect when it has
    missed three beats. ``age`` is seconds since what is said of ``busy`` and ``status`` was true.
    """

    id: str
    name: str
    epoch: int
    capabilities: tuple[str, ...]
    types: tuple[str, ...]
    state: str
    slots: int
    busy: int
    status: str = "alive"
    lease: float = 10.0
    #: What it says of its capabilities: those that are plain version 1 are left out.
    skills: Mapping[str, Skill] = field(default_factory=dict, hash=False)
    #: When that was seen, on this process's monotonic clock.
    seen: float = field(default_factory=time.monotonic, compare=False)

    def skill(self, capability: str) -> Skill:
        """The version and the metadata of what it offers."""
        return self.skills.get(capability, Skill())

    @property
    def age(self) -> float:
        return time.monotonic() - self.seen

    @property
    def load(self) -> float:
        """The share of its slots that are in use."""
        return self.busy / max(1, self.slots)

    @property
    def willing(self) -> bool:
        """Whether new work should be sent to it."""
        return self.state == "ready" and self.status == "alive"

    @property
    def full(self) -> bool:
        return self.busy >= self.slots


@dataclass(frozen=True, slots=True)
class Membership:
    """One entry of the members feed. ``cursor`` is its place: what is read from there on comes after it.

    ``type`` is joined (reason new, or back: it had been out for a while), changed (its state or what it offers), left
    (reason left: by its own will) or died (reason expired: its lease ended; vanished: no connection was
    left of it; evicted: an operator took it out).
    """

    cursor: str
    type: str
    agent: str
    reason: str
    at: str
    capabilities: tuple[str, ...]

    @staticmethod
    def read(cursor: str, fields: Mapping[str, str]) -> Membership:
        """The entry ``cursor`` with ``fields`` as they are in the stream."""
        return Membership(
            cursor, fields.get("type", ""), fields.get("agent", ""), fields.get("reason", ""), fields.get("at", ""),
            tuple(fields.get("capabilities", "").split()),
        )  # fmt: skip


class Roster:
    """The picture that one process has of the mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._peers: dict[str, PeerInfo] = {}
        self._looked = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        #: How many give every entry of the feed to `take`: with one, the picture need not be read to be trusted.
        self.followers = 0
        #: What the agent that keeps the picture thinks of a peer: '' or why it is suspect. A client judges by the last beat.
        self.doubt: Callable[[str], str] | None = None
        #: The last entry of the feed that is in the picture.
        self.cursor = "0-0"

    # -- to be asked

    async def peers(self, capability: str | None = None, *, fresh: bool = False) -> list[PeerInfo]:
        """The live agents (that offer ``capability``), in the order of their names; ``fresh`` reads them anew, in one trip.

        Otherwise from memory: an agent has it always, a client reads it for the first call, and after 5 s without one.
        """
        age = time.monotonic() - self._looked
        if fresh or age == float("inf") or (age > OUTDATED and not self.followers):
            await self.look()
        return self.known(capability)

    def known(self, capability: str | None = None) -> list[PeerInfo]:
        """What is in memory, at once. It is renewed behind the caller's back when it is older than a second."""
        age = time.monotonic() - self._looked
        if age > STALE * max(1.0, len(self._peers) / 50) and self._looking is None:
            self._looking = asyncio.create_task(self._look_behind())
        return [
            peer if (status := self._status(peer)) == peer.status else replace(peer, status=status)
            for peer in self._peers.values()
            if capability is None or capability in peer.capabilities
        ]

    def _status(self, peer: PeerInfo) -> str:
        if self.doubt is None:
            return peer.status
        return "suspect" if self.doubt(peer.id) else "alive"

    def get(self, id: str) -> PeerInfo | None:
        """That one agent as it is in memory."""
        return self._peers.get(id)

    async def page(self, cursor: int = 0, count: int = 100) -> tuple[list[PeerInfo], int]:
        """Up to ``count`` live agents from place ``cursor`` on, read now, and where the next page begins (0: there is none).

        Beats move agents between pages: whoever needs everybody exactly asks for `peers`.
        """
        _, peers = await self._read(cursor, cursor + count - 1)
        return peers, cursor + count if len(peers) >= count else 0

    async def members(self, since: str = "0-0") -> AsyncIterator[Membership]:
        """The members feed after the place ``since`` ('0-0': from its beginning, '$': from now), in order, without end.

        About 10,000 entries are kept; a reader that is further behind misses what was before.
        """
        if since == "$":
            newest = await self._store.command("XREVRANGE", self._keys.members, "+", "-", "COUNT", 1)
            since = str(newest[0][0]) if newest else "0-0"
        link = self._store.link("members")
        try:
            while True:
                read = ["XREAD", "COUNT", 100, "BLOCK", int(BLOCK * 1000), "STREAMS", self._keys.members, since]
                got = await self._store.command(*read, link=link, timeout=BLOCK + 3)
                if not got and not self._store.genuine:
                    got = await self._store.command(*read[:3], *read[5:], link=link)
                for _, entries in got or ():
                    for since, flat in entries:
                        yield Membership.read(since, dict(zip(flat[::2], flat[1::2], strict=True)))
        finally:
            await link.close()

    # -- to be kept

    async def follow(self, cursor: str) -> None:
        """Take a picture; from now on every entry of the feed after ``cursor`` goes to `take`, until `unfollow`."""
        self.cursor = max(self.cursor, cursor, key=_order)
        await self.look()
        self.followers += 1

    def unfollow(self) -> None:
        """The one who followed does so no more."""
        self.followers -= 1

    def take(self, cursor: str, fields: Mapping[str, str]) -> Membership:
        """One entry of the feed."""
        one = Membership.read(cursor, fields)
        if _order(cursor) <= _order(self.cursor):
            return one
        self.cursor = cursor
        known = self._peers.get(one.agent)
        if one.type in ("left", "died"):
            self._peers.pop(one.agent, None)
        elif one.type in ("joined", "changed") and fields.get("name"):
            busy = known.busy if known else 0
            self._peers[one.agent] = _peer(one.agent, fields, busy)
        return one

    async def look(self) -> None:
        """Read everybody anew."""
        newest, peers = await self._read(0, -1)
        self._looked = time.monotonic()
        seen = {peer.id: peer for peer in peers}
        if _order(newest) >= _order(self.cursor):
            self._peers = seen
            if not self.followers:
                self.cursor = newest
        else:
            # Older than what the feed has told meanwhile: good only for how busy everybody was.
            self._peers = {id: seen.get(id, peer) for id, peer in self._peers.items()}

    async def _look_behind(self) -> None:
        try:
            await self.look()
        except MeshError as error:
            _log.warning("the picture of the mesh is %.1f s old: %s", self._since(), error)
        finally:
            self._looking = None

    async def _read(self, first: int, last: int) -> tuple[str, list[PeerInfo]]:
        now, newest, *rows = await self._store.run("agent_list", [self._keys.prefix()], [first, last])
        names = ("name", "epoch", "capabilities", "types", "state", "slots", "busy", "lease", "skills")
        found = []
        for id, beat, *card in rows:
            fields = dict(zip(names, card, strict=False))
            silent = (int(now) - int(beat)) / 1000
            status = "suspect" if silent > SUSPECT * _number(fields["lease"], 10.0) + 0.1 else "alive"
            found.append(replace(_peer(id, fields, int(_number(fields["busy"]))), status=status))
        found.sort(key=lambda peer: (peer.name, peer.epoch))
        return str(newest), found

    def _since(self) -> float:
        age = time.monotonic() - self._looked
        return 0.0 if age == float("inf") else age

    async def close(self) -> None:
        """Nothing is looked at any more."""
        if self._looking:
            self._looking.cancel()


class Watchers:
    """Who wants to be told of joins and leaves: told one after the other, in the order of the feed."""

    def __init__(self, watching: Sequence[tuple[frozenset[str], Callable[[Membership], Any]]]) -> None:
        self._watching = watching
        self._news: asyncio.Queue[Membership] = asyncio.Queue()

    def tell(self, one: Membership) -> None:
        """An entry of the feed."""
        if any(one.type in types for types, _ in self._watching):
            self._news.put_nowait(one)

    async def loop(self) -> None:
        """Tell them, for ever. One that raises is logged, and the next is told."""
        while True:
            one = await self._news.get()
            for types, function in self._watching:
                if one.type not in types:
                    continue
                try:
                    if inspect.iscoroutinefunction(function):
                        await function(one)
                    else:
                        await asyncio.to_thread(function, one)
                except Exception:
                    _log.exception("what watches the members failed on %s of %s", one.type, one.agent)


def why_none(offering: list[PeerInfo], *, paused: bool = False) -> str:
    """Why none of those who offer something can be given it: none_registered, all_paused, all_draining, all_suspect or all_full."""
    if not offering:
        return "none_registered"
    if paused:
        return "all_paused"
    ready = [peer for peer in offering if peer.state == "ready"]
    if not ready:
        return "all_draining"
    return "all_full" if any(peer.status == "alive" for peer in ready) else "all_suspect"


def _peer(id: str, fields: Mapping[str, str], busy: int) -> PeerInfo:
    return PeerInfo(
        id, fields.get("name", ""), int(_number(fields.get("epoch"))), tuple(fields.get("capabilities", "").split()),
        tuple(fields.get("types", "").split()), fields.get("state", ""), int(_number(fields.get("slots"))), busy,
        lease=_number(fields.get("lease"), 10.0), skills=read_skills(fields.get("skills", "")),
    )  # fmt: skip


def _number(text: str | None, otherwise: float = 0.0) -> float:
    try:
        return float(text or otherwise)
    except ValueError:
        return otherwise


def _order(entry: str) -> tuple[int, int]:
    ms, _, sequence = entry.partition("-")
    return int(ms), int(sequence or 0)
