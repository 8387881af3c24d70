"""Messages between agents and clients: to one inbox, to everybody, or as a request that expects an answer.

A message to an agent stays pending until its handler has run; when that raises, or the agent dies before it has, it becomes
a dead letter of `inbox`. A broadcast is heard at most once by each agent. A request ends in an answer, a typed error as soon
as nobody can answer (NoCapableAgent, UnknownAgent, AgentDied), or its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streammesh import codec
from streammesh.errors import (
    AgentDied,
    InvalidPayload,
    NotUnderstood,
    Refused,
    RemoteError,
    RequestTimeout,
    UnknownAgent,
)
from streammesh.keys import Keys, check_id
from streammesh.moments import iso_now
from streammesh.record import lineage, new_id
from streammesh.replies import Replies
from streammesh.store import Store

__all__ = ["Message", "Messages", "check_type"]

#: About how many broadcast messages are kept for readers that are behind.
BROADCAST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A message as its handler gets it. ``source`` is the sender's word for itself, ``deadline`` ms since 1970 or None."""

    id: str
    type: str
    payload: Any
    source: str = ""
    deadline: int | None = None
    correlation: str = ""
    at: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def check_type(type: str) -> str:
    """Return ``type`` if it is a legal type of message; raises InvalidName otherwise."""
    return check_id(type, "message type")


class Messages:
    """The room of messages in one mesh; ``source`` is what this client calls itself."""

    def __init__(self, store: Store, keys: Keys, replies: Replies, source: str = "") -> None:
        self._store = store
        self._keys = keys
        self._replies = replies
        self.source = source or f"client-{replies.client}"

    def _entry(self, type: str, payload: Any, id: str) -> list[Any]:
        entry: list[Any] = ["id", id, "type", check_type(type), "payload", codec.encode(payload), "source", self.source]
        line = lineage.get()
        if line is not None:
            entry += ("correlation", line.correlation, "causation", line.causation)
        return entry

    async def send(self, to: str, type: str, payload: Any) -> str:
        """Put a message into the inbox of the live agent with the id ``to``; returns the message's id. Raises UnknownAgent."""
        id = new_id()
        await self._deliver(to, self._entry(type, payload, id))
        return id

    async def _deliver(self, to: str, entry: list[Any]) -> None:
        word = await self._store.run("message_send", [self._keys.prefix()], [to, *entry])
        if word != "ok":
            raise UnknownAgent(f"no live agent has the id {to!r}; it left or died")

    async def broadcast(self, type: str, payload: Any) -> str:
        """Tell every live agent, once each; agents that join later do not see it. Returns the message's id."""
        id = new_id()
        await self._store.command(
            "XADD",
            self._keys.broadcast,
            "MAXLEN",
            "~",
            BROADCAST_KEPT,
            "*",
            *self._entry(type, payload, id),
            "at",
            iso_now(),
        )
        return id

    async def request(self, to: str, type: str, payload: Any, timeout: float) -> Any:
        """Send a message to the live agent ``to`` and return its handler's answer.

        Raises UnknownAgent, AgentDied, NotUnderstood, RemoteError, or RequestTimeout after ``timeout`` seconds.
        """
        if not 0 < timeout < 10**9:
            raise InvalidPayload(f"timeout={timeout!r} is not usable: a request needs seconds above 0")
        id = new_id()
        future = self._replies.expect(id)
        try:
            async with asyncio.timeout(timeout):
                entry = self._entry(type, payload, id)
                entry += ("deadline", f"+{int(timeout * 1000)}", "reply_to", self._replies.client)
                await self._deliver(to, entry)
                answer = await future
        except TimeoutError:
            raise RequestTimeout(
                f"{to} did not answer {type!r} within {timeout} s; whether it acted is unknown"
            ) from None
        finally:
            self._replies.forget(id, future)
        said = answer.value or ""
        match answer.state:
            case "replied":
                return codec.decode(said, what="answer") if said else None
            case "died":
                raise AgentDied(said or f"{to} died before it answered")
            case "refused":
                refusal = codec.decode_object(said)
                raise Refused(refusal["reason"], retry_after=refusal["retry_after"])
            case "not_understood":
                raise NotUnderstood(said)
            case _:
                raise RemoteError(said)
