"""The envelope of a message: who sent it, what it belongs to, how far it has come; and its CloudEvents form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streammesh import codec
from streammesh.errors import ConfigError

if TYPE_CHECKING:
    from streammesh.record import Lineage

__all__ = ["FORWARDED", "WIRE", "Message"]

#: Entry fields that are the wire's, not the user's headers.
WIRE = frozenset(
    [
        "id",
        "payload",
        "attempt",
        "at",
        "capability",
        "deadline",
        "run",
        "step",
        "correlation",
        "causation",
        "hops",
        "via",
        "traceparent",
        "by",
        "refused",
        "reply_to",
        "request",
        "type",
        "source",
    ]
)

#: What a handler returns to say that somebody else answers.
FORWARDED = object()


@dataclass(frozen=True, slots=True)
class Message:
    """A message as its handler gets it.

    ``source`` is the agent or client that sent it, stamped by its runtime; ``deadline`` ms since 1970 or None; ``correlation`` the
    flow that it belongs to, ``causation`` the task or message that caused it ('' for the first), ``hops`` how many did so
    in a row, ``path`` the agents that it came by; ``to`` the agent whose handler has it; ``at`` is ISO-8601 by the server's clock. ``mesh`` is the agent's own client.
    """

    id: str
    type: str
    payload: Any
    source: str = ""
    deadline: int | None = None
    correlation: str = ""
    at: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    causation: str = ""
    hops: int = 0
    path: tuple[str, ...] = ()
    traceparent: str = ""
    to: str = ""
    mesh: Any = field(default=None, repr=False, compare=False)
    #: Who waits for the answer, and for what; '' when nobody does.
    reply_to: str = field(default="", repr=False)
    request: str = field(default="", repr=False)
    #: The entry of a topic's stream, and how often it was given to a member of the group, this time included.
    entry: str = field(default="", repr=False)
    delivery: int = 1
    #: How a subscription is told that it is done, and what the message passes on.
    settle: Callable[[str], Awaitable[None]] | None = field(default=None, repr=False, compare=False)
    line: Lineage | None = field(default=None, repr=False, compare=False)

    @staticmethod
    def of(fields: Mapping[str, str], line: Lineage, mesh: Any = None, entry: str = "") -> Message:
        """The message in an entry with these fields. Raises InvalidPayload."""
        path = tuple(name for name in fields.get("via", "").split())
        return Message(
            id=fields.get("id", ""), type=fields.get("type", ""), payload=codec.decode(fields.get("payload") or "null", what="message"),
            source=fields.get("source", ""), deadline=line.deadline, correlation=line.correlation, at=fields.get("at", ""),
            headers={name: value for name, value in fields.items() if name not in WIRE}, causation=fields.get("causation", ""),
            hops=line.hops, path=path, traceparent=line.traceparent, to=line.agent, mesh=mesh, reply_to=fields.get("reply_to", ""),
            request=fields.get("request") or fields.get("id", ""), entry=entry,
        )  # fmt: skip

    async def forward(self, to: str) -> Any:
        """Hand this message on to another live agent (id or name), which answers in this one's place.

        ``return await message.forward("other")`` in its handler. Raises UnknownAgent, HopLimit, BudgetExceeded, or Cycle when that
        agent has had it before: then it is still here, to be answered.
        """
        if self.mesh is None:
            raise ConfigError("only the handler of a message can forward it")
        await self.mesh.messages.forward(self, (await self.mesh.registry.resolve(to)).id)
        return FORWARDED

    async def done(self, failed: str = "") -> None:
        """Acknowledge a message of a group now, rather than when the loop goes on; with ``failed``, why, it is a dead letter.

        Only for what `Mesh.subscribe` yields; raises ConfigError elsewhere. Safe to repeat.
        """
        if self.settle is None:
            raise ConfigError("only messages of a subscription are acknowledged by hand")
        await self.settle(failed)

    def cloudevent(self) -> dict[str, Any]:
        """This message as a CloudEvents 1.0 event in its structured JSON form (media type application/cloudevents+json)."""
        event: dict[str, Any] = {
            "specversion": "1.0", "id": self.id or self.entry, "source": self.source or "unknown", "type": self.type or "unknown",
            "datacontenttype": "application/json", "data": self.payload, "meshhops": self.hops,
        }  # fmt: skip
        optional = {
            "time": self.at, "correlationid": self.correlation, "causationid": self.causation, "traceparent": self.traceparent,
            "meshpath": " ".join(self.path), "meshreply": self.reply_to,
        }  # fmt: skip
        if self.deadline is not None:
            stamp = datetime.fromtimestamp(self.deadline / 1000, UTC).isoformat(timespec="milliseconds")
            optional["expirytime"] = stamp.replace("+00:00", "Z")
        return event | {name: value for name, value in optional.items() if value}
