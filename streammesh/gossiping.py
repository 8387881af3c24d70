"""Gossip at work in an agent: what agents tell each other about themselves and about each other, without a hot key.

Frames travel in a stream of each agent that is read by cursor, kept short, and gone by itself a minute after the last frame:
one that is lost is made good by the next exchange, so nothing needs to be claimed or acknowledged. All of it goes over the one
server: where that is away, so is the gossip.

Agents tell `mesh.card` (what they offer), `mesh.edges` (how it goes with the peers they asked) and `mesh.suspects`; other keys
are the user's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from streammesh import codec
from streammesh.detecting import Detecting
from streammesh.envelope import Message
from streammesh.errors import InvalidName, PayloadError
from streammesh.gossip import Frame, Gossip
from streammesh.keys import check_id
from streammesh.mesh import Mesh
from streammesh.registry import Card
from streammesh.store import BLOCK

__all__ = ["ENOUGH", "INTERVAL", "Gossiping"]

#: Seconds between two exchanges that an agent begins.
INTERVAL = 2.0
#: In smaller meshes everybody sees everything in the registry, and gossip earns nothing.
ENOUGH = 10
#: About how many frames wait for an agent at most, and for how many ms.
KEPT, FRESH = 256, 60_000

_log = logging.getLogger("streammesh.agent")


class Gossiping:
    """The gossip of the agent ``me``. ``wanted``: True and False say whether; None means from ten agents on.

    ``card`` is what the agent says of itself, ``hurry`` makes it beat at once.
    """

    def __init__(
        self,
        mesh: Mesh,
        me: str,
        wanted: bool | None,
        detecting: Detecting,
        card: Callable[[], Card],
        hurry: Callable[[], None],
    ) -> None:
        self._mesh = mesh
        self._me = me
        self._wanted = wanted
        self._detecting = detecting
        self._card = card
        #: Beat now.
        self.hurry = hurry
        self._interval = INTERVAL
        self._cursor = "0-0"
        self.state = Gossip(me, int(me.rpartition(".")[2]), heard=self._heard)

    # -- for everybody

    @property
    def active(self) -> bool:
        """Whether this agent gossips now."""
        return len(self._detecting.live) >= ENOUGH if self._wanted is None else self._wanted

    @property
    def root(self) -> str:
        """The hash over all that is known, equal where the same is known; '' while it does not gossip."""
        return self.state.root if self.active else ""

    def set(self, key: str, value: Any) -> None:
        """Tell everybody, under a key of this agent's own. Raises InvalidName, InvalidPayload, PayloadTooLarge (about 7 kB in all)."""
        self.state.set(_own(key), value)

    def delete(self, key: str) -> bool:
        """Take a key of this agent's own back; False when there was none."""
        return self.state.delete(_own(key))

    def get(self, key: str, owner: str | None = None) -> Any:
        """What an agent (this one unless ``owner`` is given) tells under a key; None when nothing has come."""
        return self.state.get(key, owner)

    def cards(self) -> dict[str, dict[str, Any]]:
        """Agent -> its card as it is known here, without a read."""
        known = ((owner, self.state.get("mesh.card", owner)) for owner in self.state.owners())
        return {owner: card for owner, card in known if isinstance(card, dict)}

    def observed(self, peer: str) -> dict[str, list[float]]:
        """Observer -> [latency ms, share of failures, 1 when its breaker is open] on the way to ``peer``."""
        known = ((owner, self.state.get("mesh.edges", owner)) for owner in self.state.owners())
        return {owner: facts[peer] for owner, facts in known if isinstance(facts, dict) and peer in facts}

    # -- at work

    async def speak(self) -> None:
        """Begin an exchange once in an interval, whenever there is reason to gossip; for ever."""
        rng = random.Random()
        while True:
            if self.active:
                now = time.monotonic()
                self._say(now)
                self.state.see(self._detecting.live, now)
                await self._send(self.state.tick(now, rng))
            await asyncio.sleep(self._interval * rng.uniform(0.9, 1.1))

    def _say(self, now: float) -> None:
        card = self._card()
        seldom = {name: card.fields.get(name) for name in ("types", "workflows", "slots", "skills")}
        self.state.set(
            "mesh.card", {"name": card.name, "lease": card.lease, "capabilities": list(card.capabilities), **seldom}
        )
        self.state.set("mesh.edges", self._mesh.edges.facts(now))
        self.state.set("mesh.suspects", list(self._detecting.suspicion.firsthand())[:64])

    async def hear(self) -> None:
        """Take in what others send, from when there is reason to gossip on; for ever."""
        while True:
            if self.active:
                break
            await asyncio.sleep(self._interval)
        store = self._mesh.store
        link = store.link("gossip")
        key = self._mesh.keys.gossip(self._me)
        while True:
            read = ["XREAD", "COUNT", 100, "BLOCK", int(BLOCK * 1000), "STREAMS", key, self._cursor]
            got = await store.command(*read, link=link, timeout=BLOCK + 3)
            if not got and not store.genuine:
                got = await store.command(*read[:3], *read[5:], link=link)
            for _, entries in got or ():
                for self._cursor, flat in entries:
                    fields = dict(zip(flat[::2], flat[1::2], strict=True))
                    await self._send(self._answers(fields))

    def _answers(self, fields: dict[str, str]) -> list[Frame]:
        try:
            body = codec.decode_object(fields.get("body", ""))
        except PayloadError:
            self.state.counters.unreadable += 1
            return []
        return self.state.receive(Frame(fields.get("from", ""), self._me, body))

    async def _send(self, frames: Iterable[Frame]) -> None:
        commands: list[tuple[Any, ...]] = []
        for frame in frames:
            key, body = self._mesh.keys.gossip(frame.to), codec.encode(frame.body)
            commands.append(("XADD", key, "MAXLEN", "~", KEPT, "*", "from", self._me, "body", body))
            commands.append(("PEXPIRE", key, FRESH))
        # One that could not be sent is like one that was lost.
        await self._mesh.store.commands(commands)

    def _heard(self, owner: str, key: str, value: Any) -> None:
        if key == "mesh.suspects":
            named = [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
            self._detecting.suspicion.reported(owner, named)
            if self._me in named:
                _log.info("agent=%s reads that %s suspects it, and beats at once", self._me, owner)
                self.hurry()

    # -- for operators

    async def answer(self, message: Message) -> dict[str, Any]:
        """Messages of the type `gossip`: {"ask": "digest" | "peers" | "get" | "set" | "delete", …}."""
        asked = message.payload if isinstance(message.payload, dict) else {}
        owner, key = str(asked.get("owner") or self._me), str(asked.get("key") or "")
        match asked.get("ask"):
            case "digest":
                counters = self.state.counters
                said: dict[str, Any] = {
                    "owners": [list(one) for one in self.state.digest()], "tombstones": self.state.tombstones,
                    "begun": counters.begun, "answered": counters.answered, "equal": counters.equal,
                    "resets": counters.resets, "rejected": counters.rejected, "unreadable": counters.unreadable,
                }  # fmt: skip
            case "peers":
                facts, why = self._mesh.edges.facts(time.monotonic()), self._detecting.suspicion.suspects
                said = {
                    "peers": {
                        id: [*facts.get(id, []), why.get(id, "")] for id in sorted({*facts, *self.state.peers, *why})
                    }
                }
            case "get":
                said = {"values": self.state.view(owner) if not key else {key: self.state.get(key, owner)}}
            case "set":
                self.set(key, asked.get("value"))
                said = {"values": {key: asked.get("value")}}
            case "delete":
                said = {"deleted": self.delete(key)}
            case other:
                said = {"error": f"expected to be asked digest, peers, get, set or delete, not {other!r}"}
        return {"agent": self._me, "active": self.active, "root": self.state.root, **said}


def _own(key: str) -> str:
    if check_id(key, "gossip key").startswith("mesh."):
        raise InvalidName(f"gossip key {key!r} is the mesh's own; choose one that does not begin with 'mesh.'")
    return key
