"""Hearing messages: from the entry, or the broadcast, to the answer.

Messages have slots of their own, so that an agent whose tasks take all it has still answers a request, casts a ballot or
bids. A message stays pending until its handler has run; when that raises, it is a dead letter of `inbox`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from streammesh import codec
from streammesh.claims import Claims, Held
from streammesh.envelope import FORWARDED, Message
from streammesh.errors import BoundaryError, InvalidPayload, Refuse
from streammesh.handlers import in_thread, told
from streammesh.mesh import Mesh
from streammesh.record import Lineage, lineage

__all__ = ["MAIL", "Hearing", "being_cancelled", "milliseconds"]

#: Messages that one agent handles at once, whatever its tasks do.
MAIL = 64

#: What agents say to each other on their own account; nobody else sends these.
ROOMS = ("auction.", "collect.", "gossip.", "vote.")

_log = logging.getLogger("streammesh.agent")


class Hearing:
    """Runs the handlers of messages for the agent ``me``; ``now`` is the server's clock in ms."""

    def __init__(
        self, mesh: Mesh, me: str, listeners: Mapping[str, Callable[..., Any]], now: Callable[[], float]
    ) -> None:
        self._mesh = mesh
        self._me = me
        self._listeners = listeners
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(MAIL, thread_name_prefix=f"{me} messages")

    def start(self, held: Held, desk: Claims) -> None:
        """Begin to handle a message that ``desk`` has claimed."""
        held.work = self._loop.create_task(self._message(held, desk))

    async def _message(self, held: Held, desk: Claims) -> None:
        fields = held.fields
        client = fields.get("reply_to", "")
        id = " ".join((fields.get("id", ""), fields.get("correlation", ""), fields.get("request", ""))).rstrip()
        try:
            said = await self.hear(fields, request=bool(client))
            desk.settle(held, "ack", id, client, said)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and being_cancelled():
                if held.stopping == "":
                    raise
                # It stays pending with this agent, and moves on with the mail when the agent has left.
                desk.forget(held)
                return
            if isinstance(error, Refuse) and client:
                said = codec.encode({"reason": error.reason, "retry_after": error.retry_after}, what="refusal").decode()
                desk.settle(held, "ack", id, client, f"refused {said}")
                return
            boundary, text = isinstance(error, BoundaryError), told(error)
            _log.error(
                "agent=%s message %s of type %s failed: %s", self._me, fields.get("id"), fields.get("type"), text,
                exc_info=None if boundary else error,
            )  # fmt: skip
            if client and boundary:
                desk.settle(held, "ack", id, client, f"boundary {type(error).__name__} {error}")
            elif client:
                desk.settle(held, "ack", id, client, f"failed {text}")
            else:
                desk.settle(held, "ack", id, fields.get("payload", ""), f"dead {text}")
        finally:
            desk.release_slot()

    async def hear(self, fields: Mapping[str, str], *, request: bool = False) -> str:
        """Run the handler of a message; returns the word and the answer of a request. Raises what the handler raises."""
        kind = fields.get("type", "")
        deadline = fields.get("deadline")
        if request and deadline and self._now() >= milliseconds(deadline):
            return "expired the deadline passed before the agent could look"
        listener = self._listeners.get(kind)
        if listener is None:
            known = ", ".join(sorted(name for name in self._listeners if not name.startswith(ROOMS))) or "none"
            return f"not_understood agent {self._me} has no handler for messages of type {kind!r} (it knows: {known})"
        line = Lineage.of(fields, fields.get("id", ""), self._me)
        message = Message.of(fields, line, self._mesh)
        # Others than requests hand on everything but their deadline: an event is not less true when it is late.
        lineage.set(line if request else replace(line, deadline=None))
        if inspect.iscoroutinefunction(listener):
            answer = await listener(message)
        else:
            here = contextvars.copy_context()
            answer = await self._loop.run_in_executor(
                self._threads, partial(here.run, in_thread, partial(listener, message))
            )
        if answer is FORWARDED:
            return "forwarded to another agent"
        return f"replied {codec.encode(answer, what='answer').decode()}"

    def close(self) -> None:
        """Let the threads go; those that still run end with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def milliseconds(text: str) -> float:
    """The ms of a deadline as an entry has it. Raises InvalidPayload."""
    try:
        value = int(text) if len(text) <= 15 else -1
    except ValueError:
        value = -1
    if value < 0:
        raise InvalidPayload(f"the entry's deadline {text[:40]!r} is not usable; expected ms since 1970")
    return float(value)


def being_cancelled() -> bool:
    """Whether somebody asked for this cancellation, rather than the handler raising it on its own."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
