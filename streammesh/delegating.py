"""What becomes of a task that this agent will not do: it is offered to another one, then to all, and never lost.

A refused task goes to one healthy agent that offers its capability and has not refused it (the less loaded of two drawn at
random); after the second refusal it goes to the queue of its capability, where whoever has room takes it. Each hand-on is
one script: the task has one owner at any time, and no failure is counted. It is a dead letter, `no_capable_agent`, when no
live agent offers the capability, or when its deadline would pass before it could be offered again.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from streammesh import codec
from streammesh.choice import two_choices
from streammesh.claims import Claims, Held
from streammesh.errors import Defer, PayloadError, Refuse
from streammesh.handlers import Handler, short
from streammesh.hearing import milliseconds
from streammesh.mesh import Mesh

__all__ = ["Delegating", "Load", "Outcome"]

#: After so many refusals a task is handed to nobody in particular.
REFUSALS = 2
#: The longest wait, in seconds, before a task that everybody refused is offered again; the first is half a second, then they double.
LONGEST_WAIT = 30.0

#: A verb of task_settle and what goes with it.
Outcome = tuple[str, Any, Any, Any]

_log = logging.getLogger("streammesh.agent")


@dataclass(frozen=True, slots=True)
class Load:
    """How busy this agent is, as ``can_handle`` is told: ``busy`` of ``slots`` are in use, the asked task's own among them."""

    slots: int
    busy: int


class Delegating:
    """Decides for the agent ``me``; ``predicates`` are what was declared with ``can_handle``, ``now`` is the server's clock in ms."""

    def __init__(
        self,
        mesh: Mesh,
        me: str,
        predicates: Mapping[str, Callable[..., Any]],
        claims: Claims,
        now: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._me = me
        self._predicates = predicates
        self._claims = claims
        self._now = now
        #: Capabilities that the agent withdraws.
        self.closed: Collection[str] = ()

    async def assess(self, held: Held, handler: Handler | None) -> Outcome | None:
        """What becomes of the task instead of being done; None when this agent does it. Raises what the predicate raises."""
        if handler is None:
            return await self.refused(held, Refuse(f"{self._me} has no handler for capability {held.capability!r}"))
        if held.capability in self.closed and held.stream == self._mesh.keys.inbox(self._me, held.shard):
            return await self.refused(held, Refuse(f"{self._me} withdraws {held.capability!r}"))
        predicate = self._predicates.get(held.capability)
        if predicate is None:
            return None
        try:
            payload = codec.decode_object(held.fields.get("payload", ""))
        except PayloadError:
            # To be told by the one who would do it.
            return None
        load = Load(self._claims.slots, self._claims.running)
        try:
            if inspect.iscoroutinefunction(predicate):
                verdict = await predicate(payload, load)
            else:
                verdict = await asyncio.to_thread(predicate, payload, load)
        except (Refuse, Defer) as word:
            verdict = word
        if verdict is None or verdict is True:
            return None
        return await self.declined(held, Refuse() if verdict is False else verdict)

    async def declined(self, held: Held, word: Any) -> Outcome:
        """What becomes of a task after ``word``. Raises TypeError when that is neither a Refuse nor a Defer."""
        if isinstance(word, Defer):
            return self._later(held, word.seconds, str(word))
        if isinstance(word, Refuse):
            return await self.refused(held, word)
        raise TypeError(
            f"can_handle of {held.capability} returned {word!r}; expected True, False, None, Refuse(reason) or Defer(seconds)"
        )

    async def refused(self, held: Held, refuse: Refuse) -> Outcome:
        """What becomes of a task that this agent refused."""
        why = short(f"refused by {self._me}: {refuse.reason}")
        before = held.fields.get("refused", "").split()
        offering = await self._mesh.peers(held.capability)
        if all(peer.id == self._me for peer in offering):
            # Before a verdict for good: those who have just come.
            offering = await self._mesh.peers(held.capability, fresh=True)
        if not offering:
            return "dead", f"no live agent offers {held.capability} ({why})", "no_capable_agent", ""
        able = [peer for peer in offering if peer.willing and peer.id != self._me and peer.id not in before]
        if able and len(before) + 1 < REFUSALS:
            to = two_choices(able)
            _log.info("agent=%s task=%s handed on to %s: %s", self._me, held.id, to.id, refuse.reason)
            return "delegate", why, to.id, ""
        if held.stream == self._mesh.keys.inbox(self._me, held.shard):
            # From the queue whoever has room takes it.
            return "delegate", why, "", ""
        wait = refuse.retry_after
        return self._later(held, min(LONGEST_WAIT, 2.0 ** min(held.attempt - 2, 10)) if wait is None else wait, why)

    def _later(self, held: Held, seconds: float, why: str) -> Outcome:
        deadline = held.fields.get("deadline")
        if deadline is not None and self._now() + seconds * 1000 >= milliseconds(deadline):
            said = f"its deadline would pass before {held.capability} could be offered again ({why})"
            return "dead", said, "no_capable_agent", ""
        return "again", short(why), int(seconds * 1000), ""
