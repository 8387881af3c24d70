"""Who is here: agents, their capabilities, and what is paused.

An agent is alive as long as its key lives: each beat renews it for one lease. Nothing but that decides whether its work
may move. The registry is shard 0's; a lost one (restart without data, FLUSHALL) is rebuilt by the next beats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streammesh.cards import agent_card, read_skills
from streammesh.errors import ServerFull, UnknownAgent
from streammesh.keys import Keys, check_name
from streammesh.moments import iso_now
from streammesh.store import Reply, Store, ThreadLink

__all__ = ["AgentInfo", "Beat", "Card", "Expired", "Registry"]


@dataclass(frozen=True, slots=True)
class Card:
    """What an agent says of itself at every beat. ``lease`` in seconds."""

    name: str
    boot: str
    lease: float
    capabilities: tuple[str, ...]
    fields: Mapping[str, str | int | float]

    def args(self) -> list[Any]:
        flat: list[Any] = ["capabilities", " ".join(self.capabilities), "lease", self.lease]
        for name, value in self.fields.items():
            flat += (name, value)
        return [len(flat) // 2, *flat, *self.capabilities]


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat brought back: 'ok', 'back' (was gone), 'taken' or 'evicted'; the server's ms; the paused capabilities."""

    word: str
    now_ms: int
    paused: frozenset[str]


@dataclass(frozen=True, slots=True)
class Expired:
    """Agents found dead now, and the live ones at ``at_ms``; the lease of ``spared`` of them has ended, but nobody may say so yet.

    ``vanished``: those of the dead of which no connection was left; their work moves at once.
    """

    dead: tuple[str, ...]
    live: tuple[str, ...]
    at_ms: int
    spared: int
    vanished: frozenset[str]


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """A live agent as others see it. ``age`` is seconds since its last beat, by the server's clock."""

    id: str
    fields: Mapping[str, str]
    age: float

    @property
    def name(self) -> str:
        return self.fields.get("name", "")

    @property
    def state(self) -> str:
        return self.fields.get("state", "")

    @property
    def capabilities(self) -> tuple[str, ...]:
        return tuple(self.fields.get("capabilities", "").split())

    @property
    def types(self) -> tuple[str, ...]:
        """The types of messages that it has handlers for."""
        return tuple(self.fields.get("types", "").split())

    @property
    def topics(self) -> tuple[str, ...]:
        """What it votes on."""
        return tuple(self.fields.get("topics", "").split())

    @property
    def slots(self) -> int:
        return int(self.fields.get("slots", 0))

    @property
    def busy(self) -> int:
        return int(self.fields.get("busy", 0))


class Registry:
    """The room of agents in one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._shard0 = [keys.prefix()]

    # -- for agents

    async def join(self, card: Card) -> tuple[str, int]:
        """Register a process; returns its id (unique for ever) and the server's ms."""
        id, now = await self._store.run(
            "agent_join", self._shard0, [card.name, card.boot, int(card.lease * 1000), *card.args()]
        )
        return str(id), int(now)

    async def open_streams(self, shard: int, streams: Sequence[tuple[str, str]], agent: str) -> None:
        """Make sure that (stream, capability or '' for the inbox) exist with their groups."""
        await self._store.run(
            "stream_open",
            [self._keys.prefix(shard), *(stream for stream, _ in streams)],
            [*(capability for _, capability in streams), agent],
        )

    def beat(self, link: ThreadLink, id: str, card: Card) -> Beat:
        """Renew the registration, from the heartbeat's thread."""
        epoch = id.rpartition(".")[2]
        reply: Reply = link.run(
            "agent_beat", self._shard0, [id, card.name, epoch, card.boot, int(card.lease * 1000), *card.args()]
        )
        return Beat(str(reply[0]), int(reply[1]), frozenset(reply[2:]))

    async def leave(self, id: str, card: Card) -> None:
        """Take the registration away; what the agent left in its inbox must have been drained before."""
        await self._store.run("agent_leave", self._shard0, [id, card.boot, *card.capabilities])

    async def expire(self, limit: int = 50, *, spare: float = 0.0, stall: float = 1e6) -> Expired:
        """Bury agents whose lease has ended; any agent may, any number at once. ``limit`` 0 buries nobody.

        After a gap of more than ``stall`` seconds in the sweeping nobody is buried for a while; when most are silent at
        once, only those that have been for ``spare`` seconds.
        """
        dead, live, now, spared, vanished = await self._store.run(
            "agent_expire", self._shard0, [limit, int(spare * 1000), int(stall * 1000)]
        )
        return Expired(tuple(dead), tuple(live), int(now), int(spared), frozenset(vanished))

    async def vanish(self, missed: Mapping[str, str]) -> tuple[str, ...]:
        """Bury agents before their lease has ended, because no connection is left of them; returns those that were.

        ``missed``: id -> its last beat, as it was when the agent was missed. One that has beaten since is left alone.
        """
        return tuple(
            await self._store.run("agent_vanish", self._shard0, [word for one in missed.items() for word in one])
        )

    async def offered(self) -> tuple[str, ...]:
        """The capabilities that registered agents offer."""
        names = sorted(await self._store.command("SMEMBERS", self._keys.caps()))
        there = await self._store.commands([("EXISTS", self._keys.cap_agents(name)) for name in names])
        return tuple(name for name, some in zip(names, there, strict=True) if some)

    # -- for everybody

    async def agents(self) -> list[AgentInfo]:
        """All live agents, in the order of their last beats, newest first."""
        scored: list[str] = await self._store.command("ZRANGE", self._keys.agents, 0, -1, "WITHSCORES")
        ids = scored[::2]
        replies = await self._store.commands([("TIME",), *(("HGETALL", self._keys.agent(id)) for id in ids)])
        seconds, micros = replies[0]
        now = int(seconds) * 1000 + int(micros) // 1000 + await self._store.ahead(self._keys.clock())
        found = []
        for id, beat, flat in zip(ids, scored[1::2], replies[1:], strict=True):
            if flat:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                found.append(AgentInfo(id, fields, max(0.0, (now - int(float(beat))) / 1000)))
        return found[::-1]

    async def resolve(self, to: str) -> AgentInfo:
        """The live agent with that id, or the least busy one with that name. Raises UnknownAgent, naming who is here."""
        everyone = await self.agents()
        matches = [agent for agent in everyone if to in (agent.id, agent.name)]
        if not matches:
            names = ", ".join(sorted(agent.id for agent in everyone)[:8]) or "nobody"
            raise UnknownAgent(f"no live agent has the id or name {to!r}; alive: {names}")
        return min(matches, key=lambda agent: (agent.busy / max(1, agent.slots), agent.id))

    async def card(self, agent: str) -> dict[str, Any]:
        """The A2A AgentCard of a live agent (id or name), as JSON values; see `streammesh.cards`. Raises UnknownAgent."""
        one = await self.resolve(agent)
        said = await self._store.commands([("HGETALL", self._keys.cap(name)) for name in one.capabilities])
        skills = [
            (name, dict(zip(flat[::2], flat[1::2], strict=True)))
            for name, flat in zip(one.capabilities, said, strict=True)
        ]
        return agent_card(self._keys.namespace, one.id, one.name, skills, read_skills(one.fields.get("skills", "")))

    async def capabilities(self) -> dict[str, dict[str, str]]:
        """Every capability that was ever used -> the fields of its hash (paused, retries, timeout …)."""
        names: set[str] = set()
        for reply in await self._store.commands(
            [("SMEMBERS", self._keys.caps(shard)) for shard in range(self._keys.shards)]
        ):
            names.update(reply)
        listed = sorted(names - {"inbox"})
        hashes = await self._store.commands([("HGETALL", self._keys.cap(name)) for name in listed])
        return {name: dict(zip(flat[::2], flat[1::2], strict=True)) for name, flat in zip(listed, hashes, strict=True)}

    async def describe(self, capability: str, fields: Mapping[str, str]) -> None:
        """Write what a capability says of itself into its hash."""
        if fields:
            flat = [item for pair in fields.items() for item in pair]
            await self._store.command("HSET", self._keys.cap(capability), *flat)

    async def pause(self, capability: str, *, by: str = "client") -> bool:
        """Stop agents from taking new tasks of a capability; running ones finish. False when it was paused already."""
        check_name(capability, "capability")
        fresh = await self._store.command("HSET", self._keys.cap(capability), "paused", by)
        await self._announce("pause", capability, by)
        return bool(fresh)

    async def resume(self, capability: str, *, by: str = "client") -> bool:
        """Let agents take tasks of the capability again. False when it was not paused."""
        check_name(capability, "capability")
        was = await self._store.command("HDEL", self._keys.cap(capability), "paused")
        await self._announce("resume", capability, by)
        return bool(was)

    async def paused(self, capabilities: Iterable[str]) -> frozenset[str]:
        """Those of ``capabilities`` that are paused."""
        names = list(capabilities)
        said = await self._store.commands([("HGET", self._keys.cap(name), "paused") for name in names])
        return frozenset(name for name, by in zip(names, said, strict=True) if by)

    async def drain(self, agent: str, *, by: str = "client") -> str:
        """Ask a live agent to finish and leave; returns its id. Raises UnknownAgent."""
        id = (await self.resolve(agent)).id
        await self._act("drain", agent=id, by=by)
        return id

    async def evict(self, id: str, *, by: str = "client") -> None:
        """Take a live agent out of the registry: what it holds moves at once, and its process, should it live, stops.

        For one that hangs, and holds up its work. Raises UnknownAgent; a name is not enough.
        """
        if await self._store.run("agent_evict", self._shard0, [id, by]) == "missing":
            raise UnknownAgent(f"no live agent has the id {id!r}; see `streammesh agents ls`")

    async def _announce(self, kind: str, capability: str, by: str) -> None:
        # Done already; agents learn of it by their next beat anyway. A full server must not make an error of it.
        with contextlib.suppress(ServerFull):
            await self._act(kind, capability=capability, by=by)

    async def _act(self, kind: str, **fields: str) -> None:
        flat = [item for pair in fields.items() for item in pair]
        await self._store.command(
            "XADD", self._keys.control, "MAXLEN", "~", 1000, "*", "type", kind, *flat, "at", iso_now()
        )
