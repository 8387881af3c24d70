"""What an agent offers, while it serves: its card, and capabilities that come and go at run time.

A capability that is withdrawn is closed first (nothing more is taken from its queue, what is addressed to the agent is handed
on), then what runs is finished, then it is out of the registry. What waits in its queue stays there for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import secrets
import socket
from collections.abc import Mapping

from streammesh.cards import write_skills
from streammesh.claims import Claims
from streammesh.delegating import Delegating
from streammesh.errors import ConfigError, ServerFull
from streammesh.handlers import Handler
from streammesh.keys import GROUP
from streammesh.lanes import Lanes
from streammesh.mesh import Mesh
from streammesh.pulse import Pulse
from streammesh.registry import Card

__all__ = ["Offering"]

_log = logging.getLogger("streammesh.agent")


class Offering:
    """The capabilities of the agent ``name``, in ``handlers``; ``said`` is what else its card says and what never changes."""

    def __init__(
        self, mesh: Mesh, name: str, lease: float, handlers: dict[str, Handler], said: Mapping[str, str | int]
    ) -> None:
        self._mesh = mesh
        self._name = name
        self._lease = lease
        self._handlers = handlers
        self._said = said
        self._boot = secrets.token_hex(8)
        self._beat = asyncio.Event()
        self._me = ""
        self._over = False
        self._lanes: Lanes
        self._claims: Claims
        self._pulse: Pulse

    def card(self, state: str, busy: int, root: str) -> Card:
        """What the agent says of itself at every beat, as of now; ``root`` is that of its gossip. From any thread."""
        handlers = list(self._handlers.values())
        fields: dict[str, str | int | float] = {
            "state": state, "busy": busy, **self._said, "skills": write_skills((one.capability, one.skill) for one in handlers),
            "host": socket.gethostname(), "pid": os.getpid(), "python": platform.python_version(), "root": root,
        }  # fmt: skip
        return Card(self._name, self._boot, self._lease, tuple(one.capability for one in handlers), fields)

    def begin(self, me: str, lanes: Lanes, claims: Claims, delegating: Delegating, pulse: Pulse) -> None:
        """The agent is at work now, under the id ``me``."""
        self._me, self._lanes, self._claims, self._pulse = me, lanes, claims, pulse
        delegating.closed = lanes.closed

    def beaten(self) -> None:
        """A beat has come through."""
        if not self._over:
            self._beat.set()
            self._beat = asyncio.Event()

    def end(self) -> None:
        """No beat will come any more: whoever waits for one goes on."""
        self._over = True
        self._beat.set()

    async def describe(self) -> None:
        """Write what the capabilities say of themselves into their hashes."""
        with contextlib.suppress(ServerFull):  # only people read it, and what a full server needs is agents
            for handler in list(self._handlers.values()):
                await self._mesh.registry.describe(handler.capability, handler.card())

    async def announce(self, handler: Handler) -> None:
        """Offer one capability more; returns when it is in the registry. Raises ConfigError when it is offered already."""
        name = handler.capability
        if name in self._handlers:
            raise ConfigError(f"agent {self._me} offers {name!r} already; withdraw it first")
        for shard in range(self._mesh.keys.shards):
            await self._mesh.registry.open_streams(shard, self._lanes.of(name, shard), self._me)
        if name in self._handlers:
            raise ConfigError(f"agent {self._me} offers {name!r} already; withdraw it first")
        self._handlers[name] = handler
        await self.describe()
        self._claims.pause(self._lanes.paused | await self._mesh.registry.paused([name]))
        self._lanes.open(name)
        await self._claims.find_lanes()
        self._claims.wake()
        await self._listed(name, True)
        _log.info("agent=%s offers %s from now on", self._me, name)

    async def withdraw(self, capability: str) -> None:
        """Offer one capability less; returns when what ran of it has ended and it is out of the registry.

        A withdrawal that is cancelled before that leaves it offered. Raises ConfigError when it is not offered.
        """
        if capability not in self._handlers or capability in self._lanes.closed:
            raise ConfigError(f"agent {self._me} does not offer {capability!r}; it offers {', '.join(self._handlers)}")
        self._lanes.close(capability)
        self._claims.wake()
        try:
            await self._emptied(capability)
        except BaseException:
            self._lanes.open(capability)
            self._claims.wake()
            raise
        del self._handlers[capability]
        await self._listed(capability, False)
        _log.info("agent=%s offers %s no more", self._me, capability)

    async def _emptied(self, capability: str) -> None:
        """Until nothing of it is held here, nor pending with us in its streams: strays are handed back by the beats."""
        while not self._over:
            beat = self._beat
            held = [one for one in self._claims.held.values() if one.capability == capability]
            running = [one.work for one in held if one.work and not one.work.done()]
            if running:
                await asyncio.wait(running)
            await self._claims.flushed()
            if not any(one.capability == capability for one in self._claims.held.values()):
                streams = [stream for n in range(self._mesh.keys.shards) for stream, _ in self._lanes.of(capability, n)]
                pending = [("XPENDING", stream, GROUP, "-", "+", 1, self._me) for stream in streams]
                if not any(one and not isinstance(one, Exception) for one in await self._mesh.store.commands(pending)):
                    return
            if not running:
                await beat.wait()

    async def _listed(self, capability: str, wanted: bool) -> None:
        """Until the registry says so too."""
        while not self._over:
            beat = self._beat
            self._pulse.hurry()
            await beat.wait()
            said = await self._mesh.store.command("HGET", self._mesh.keys.agent(self._me), "capabilities")
            if (capability in (said or "").split()) == wanted:
                return
