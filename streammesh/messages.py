"""Messages between agents and clients: to one inbox, to everybody, or as a request that expects an answer.

A message to an agent stays pending until its handler has run; when that raises, or the agent dies before it has, it becomes
a dead letter of `inbox`. A broadcast is heard at most once by each agent. A request ends in an answer, a typed error as soon
as nobody can answer (NoCapableAgent, UnknownAgent, AgentDied), or its deadline.
"""

from __future__ import annotations

import asyncio
from typing import Any

from streammesh import codec
from streammesh.boundaries import Boundaries, refusal, told_refusal
from streammesh.envelope import Message
from streammesh.errors import (
    AgentDied,
    Backpressure,
    DeadlinePassed,
    InvalidPayload,
    NoCapableAgent,
    NotUnderstood,
    Refused,
    RemoteError,
    RequestTimeout,
    UnknownAgent,
)
from streammesh.keys import Keys, check_id
from streammesh.record import lineage, new_id
from streammesh.replies import Replies
from streammesh.store import Store

__all__ = ["Messages", "check_type"]

#: About how many broadcast messages are kept for readers that are behind.
BROADCAST_KEPT = 1000


def check_type(type: str) -> str:
    """Return ``type`` if it is a legal type of message; raises InvalidName otherwise."""
    return check_id(type, "message type")


class Messages:
    """The room of messages in one mesh; ``source`` is what this client calls itself outside of handlers."""

    def __init__(
        self, store: Store, keys: Keys, replies: Replies, boundaries: Boundaries | None = None, source: str = ""
    ) -> None:
        self._store = store
        self._keys = keys
        self._replies = replies
        self.boundaries = boundaries or Boundaries()
        self.source = source or f"client-{replies.client}"

    async def publish(
        self, where: str, type: str, payload: Any, *, kept: int = 0, mode: str = "", extra: tuple[Any, ...] = ()
    ) -> str:
        """Publish to ``where``: 'agent <id>', 'broadcast' or 'topic <name>'; returns the message's id. One script, safe to repeat.

        ``kept`` is about how many of a broadcast or topic are kept (the mail of an agent is held to its boundary), ``mode`` 'forward', 'require' or '', ``extra`` more of its entry. Raises
        UnknownAgent, NoCapableAgent, Backpressure, PayloadError, HopLimit, Cycle, BudgetExceeded, DeadlinePassed.
        """
        line = lineage.get()
        pairs = dict(zip(extra[::2], extra[1::2], strict=True))
        id = str(pairs.pop("id", "")) or new_id()
        source = line.agent if line is not None and line.agent else self.source
        entry: list[Any] = ["id", id, "type", check_type(type), "payload", codec.encode(payload), "source", source]
        entry += line.pairs() if line is not None else ("correlation", id)
        for name, value in pairs.items():
            entry += (name, value)
        kept = self.boundaries.mail if where.startswith("agent ") else kept
        word = await self._store.run(
            "message_send", [self._keys.prefix()], [where, kept, self.boundaries.for_message(), mode, *entry]
        )
        if word == "missing":
            raise UnknownAgent(f"no live agent has the id {where.removeprefix('agent ')!r}; it left or died")
        if word == "nobody":
            raise NoCapableAgent(f"nobody subscribes to {where}; nothing was published", reason="no_subscriber")
        if word.startswith("full "):
            _, length, waited = word.split()
            wait = min(30.0, max(0.1, int(waited) / 2000))
            raise Backpressure(
                f"message {type!r} was not sent: {length} messages wait for {where.removeprefix('agent ')}, the oldest for "
                f"{int(waited) / 1000:.1f} s; try again in {wait:.1f} s, or raise mesh.boundaries.mail",
                length=int(length),
                retry_after=wait,
            )
        if word != "ok":
            raise refusal(word, f"message {type!r}", line)
        return id

    async def send(self, to: str, type: str, payload: Any) -> str:
        """Put a message into the mail of the live agent with the id ``to``; returns the message's id. Errors as in `publish`."""
        return await self.publish(f"agent {to}", type, payload)

    async def broadcast(self, type: str, payload: Any) -> str:
        """Tell every live agent but the sender, once each; agents that join later do not see it. Returns the message's id."""
        return await self.publish("broadcast", type, payload, kept=BROADCAST_KEPT)

    async def heard(self, flow: str, id: str, who: str, error: str = "") -> None:
        """Tell the story of the flow that ``who`` heard the broadcast ``id``, and with what error, if any."""
        word = "failed" if error else "replied"
        await self._store.run("message_heard", [self._keys.prefix()], [flow, id, who, word, error])

    async def forward(self, message: Message, to: str) -> str:
        """Hand ``message`` on to the live agent ``to``, which answers in its handler's place. Raises Cycle, and as `publish`."""
        extra: tuple[Any, ...] = ()
        if message.reply_to:
            extra += ("reply_to", message.reply_to, "request", message.request)
        if message.deadline is not None:
            extra += ("deadline", message.deadline)
        for name, value in message.headers.items():
            extra += (name, value)
        return await self.publish(f"agent {to}", message.type, message.payload, mode="forward", extra=extra)

    async def request(self, to: str, type: str, payload: Any, timeout: float) -> Any:
        """Send a message to the live agent ``to`` and return its handler's answer.

        Raises UnknownAgent, AgentDied, NotUnderstood, RemoteError, RequestTimeout after ``timeout`` seconds, or what boundary it
        came to, here or where it was forwarded to. In a handler, the deadline is that of what is being handled at the latest.
        """
        if not 0 < timeout < 10**9:
            raise InvalidPayload(f"timeout={timeout!r} is not usable: a request needs seconds above 0")
        id = new_id()
        future = self._replies.expect(id)
        try:
            async with asyncio.timeout(timeout):
                line = lineage.get()
                own = f"+{int(timeout * 1000)}"
                until = line.until(own) if line is not None else own
                extra = ("id", id, "deadline", until, "reply_to", self._replies.client)
                await self.publish(f"agent {to}", type, payload, extra=extra)
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
                word = codec.decode_object(said)
                raise Refused(word["reason"], retry_after=word["retry_after"])
            case "not_understood":
                raise NotUnderstood(said)
            case "expired":
                raise DeadlinePassed(f"{to}: {said}; {type!r} was surely not begun")
            case "boundary":
                raise told_refusal(said)
            case _:
                raise RemoteError(said)
