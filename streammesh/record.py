"""What a task's record says, and what a task passes on to the work that it causes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from streammesh import codec

__all__ = ["RETENTION", "Lineage", "Record", "State", "lineage", "new_id"]

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


#: The lineage of the task that the current handler works on, if any.
lineage: ContextVar[Lineage | None] = ContextVar("streammesh_lineage", default=None)


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
