"""What a task's record says, and what a task passes on to the work that it causes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from streammesh import codec

__all__ = ["RETENTION", "Lineage", "Record", "State", "lineage", "new_flow", "new_id", "trace_of"]

#: How long, in seconds, the record of a finished task (its result, and its id as idempotency key) is kept.
RETENTION = 3600.0


class State(StrEnum):
    """Where a task is. The first three are open, the others final."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self not in (State.QUEUED, State.DELAYED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a task passes on to the tasks and messages that its handler sends."""

    correlation: str
    causation: str
    traceparent: str = ""
    #: Messages and tasks from the one that began the flow to this one.
    hops: int = 0
    #: The agents that this came by, and the one that handles it now; separated by blanks.
    via: str = ""
    #: ms since 1970 until which all of it has to be done, for tasks and requests.
    deadline: int | None = None
    #: The agent that handles it.
    agent: str = ""

    def pairs(self) -> tuple[Any, ...]:
        """Names and values that go into the entry of whatever this causes."""
        pairs: tuple[Any, ...] = ("correlation", self.correlation, "causation", self.causation, "hops", self.hops + 1)
        if self.via:
            pairs += ("via", self.via)
        if self.traceparent:
            pairs += ("traceparent", self.traceparent)
        return pairs

    def until(self, deadline: str) -> str:
        """A deadline as the scripts take it, with this one's as its upper limit; '' for none."""
        return f"{deadline} {self.deadline}".strip() if self.deadline is not None else deadline

    @staticmethod
    def of(fields: Mapping[str, str], id: str, agent: str) -> Lineage:
        """What the entry of the task or message ``id`` passes on while ``agent`` handles it."""
        hops, deadline = fields.get("hops", ""), fields.get("deadline", "")
        return Lineage(
            fields.get("correlation") or id,
            id,
            fields.get("traceparent") or trace_of(fields.get("correlation") or id),
            int(hops) if hops.isdecimal() and len(hops) < 10 else 0,
            " ".join([*fields.get("via", "").split()[-31:], agent]),
            int(deadline) if deadline.isdecimal() and len(deadline) < 16 else None,
            agent,
        )


def trace_of(flow: str) -> str:
    """The traceparent (W3C Trace Context) of a flow that brought none along: made of its id, so everybody makes the same one."""
    words = []
    for multiplier in (31, 131, 1313, 65599):
        hash = multiplier
        for byte in flow.encode():
            hash = (hash * multiplier + byte) % 4294967291
        words.append(f"{hash:08x}")
    return f"00-{''.join(words)}-{words[3]}{words[0]}-01"


#: The lineage of the task or message that the current handler works on, if any.
lineage: ContextVar[Lineage | None] = ContextVar("streammesh_lineage", default=None)


@contextmanager
def new_flow() -> Iterator[None]:
    """What is sent within this block of a handler begins flows of its own: fresh hops, budget and correlation, no deadline.

    For work that goes on for ever by design, such as a task that enqueues its own successor.
    """
    token = lineage.set(None)
    try:
        yield
    finally:
        lineage.reset(token)


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a task as read from the server, with its JSON fields decoded lazily by name.

    ``fields`` holds every field as text; the properties are those that people ask for.
    """

    id: str
    fields: Mapping[str, str]

    @property
    def state(self) -> State:
        return State(self.fields["state"])

    @property
    def capability(self) -> str:
        return self.fields.get("capability", "")

    @property
    def payload(self) -> Any:
        return codec.decode(self.fields.get("payload", "{}"))

    @property
    def result(self) -> Any:
        return codec.decode(self.fields["result"], what="result") if "result" in self.fields else None

    @property
    def error(self) -> str:
        return self.fields.get("error", "")

    @property
    def agent(self) -> str:
        return self.fields.get("agent", "")

    @property
    def attempt(self) -> int:
        return int(self.fields.get("attempt", 0))

    @property
    def progress(self) -> Any:
        return codec.decode(self.fields["progress"], what="progress") if "progress" in self.fields else None


def new_id() -> str:
    """A fresh task id: 23 hex digits, ordered by time of making."""
    return f"{time.time_ns() // 1_000_000:011x}{os.urandom(6).hex()}"
