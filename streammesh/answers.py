"""What every agent answers without being told to: messages of the types `ping`, `info`, `stats` and `gossip`.

A handler that the user declares for one of these types takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from streammesh.claims import Claims
from streammesh.envelope import Message
from streammesh.gossiping import Gossiping
from streammesh.registry import Card
from streammesh.tending import Tending

__all__ = ["AtWork", "answers"]


class AtWork(Protocol):
    """What is asked of the agent at work (`Serving`)."""

    id: str
    claims: Claims
    tending: Tending
    gossiping: Gossiping


def answers(agent: AtWork, card: Callable[[], Card]) -> dict[str, Callable[..., Any]]:
    """Message type -> its handler. ``card`` is what the agent says of itself at every beat."""
    began = time.monotonic()

    async def ping(message: Message) -> dict[str, Any]:
        """Back at once: the whole way through inbox, claim and loop was walked."""
        return {"agent": agent.id, "said": message.payload}

    async def gossip(message: Message) -> dict[str, Any]:
        return await agent.gossiping.answer(message)

    async def info(_: Message) -> dict[str, Any]:
        own = card()
        return {"agent": agent.id, "lease": own.lease, "capabilities": list(own.capabilities), **own.fields}

    async def stats(_: Message) -> dict[str, Any]:
        claims = agent.claims
        return {
            "agent": agent.id, "up_seconds": round(time.monotonic() - began, 3), "running": claims.running,
            "held": len(claims.held), "claimed": claims.claimed, "settled": claims.settled, "stale": claims.stale,
            "sweeps": agent.tending.sweeps, "fired": agent.tending.fired,
        }  # fmt: skip

    return {"ping": ping, "info": info, "stats": stats, "gossip": gossip}
