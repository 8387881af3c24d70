"""How an agent takes part in auctions: it answers calls, reserves a slot for an award, and drives auctions whose time has come.

An agent that declares no function for a capability bids by load: its free slots speak for it. A slot that is reserved is
taken from the claim loops before the award is confirmed, so that no two confirmed awards ever meet in one slot.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from streammesh.bids import Bid, Call, Refusal
from streammesh.claims import Claims, Held
from streammesh.envelope import Message
from streammesh.errors import ConfigError, MeshError
from streammesh.handlers import told
from streammesh.keys import check_name
from streammesh.lanes import Lanes
from streammesh.mesh import Mesh
from streammesh.perform import Performer
from streammesh.tending import Tending

__all__ = ["BidFunction", "Bidding", "check_bids"]

BidFunction = Callable[[Call], Bid | Refusal | Awaitable[Bid | Refusal]]

_log = logging.getLogger("streammesh.agent")


class AtWork(Protocol):
    """What is asked of the agent at work (`Serving`)."""

    id: str
    claims: Claims
    lanes: Lanes
    performer: Performer
    tending: Tending


def check_bids(capability: str, function: Callable[..., Any]) -> None:
    """Check a function that bids when it is declared. Raises ConfigError."""
    check_name(capability, "capability")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise ConfigError(
            f"bids for capability {capability!r}: expected a function of one parameter, the Call, as in async def bid(call)"
        ) from None


class Bidding:
    """The part of one agent in auctions; ``functions`` are those that bid, by capability."""

    def __init__(self, mesh: Mesh, agent: AtWork, functions: Mapping[str, BidFunction]) -> None:
        self._mesh = mesh
        self._agent = agent
        self._functions = functions

    def listeners(self) -> dict[str, Callable[..., Any]]:
        """Message type -> its handler."""
        return {"auction.call": self.call, "auction.award": self.award, "auction.reject": self.reject}

    # -- messages

    async def call(self, message: Message) -> None:
        """A call for bids: answer it before it closes."""
        said = message.payload
        left = max(0.0, (said["closes"] - self._agent.performer.now()) / 1000)
        # Whoever was asked sees to it that the auction closes, should its initiator die.
        self._agent.tending.put_off(left)
        id = said["auction"]
        try:
            async with asyncio.timeout(left + 1.0):
                answer = await self._answer(said)
        except TimeoutError:
            _log.warning("agent=%s auction=%s its bid was not ready in time", self._agent.id, id)
            return
        word, wait = await self._mesh.auctions.bid(id, self._agent.id, answer, self._free())
        if word == "invalid":
            _log.warning("agent=%s auction=%s its bid %s was refused as invalid", self._agent.id, id, answer)
            word, wait = await self._mesh.auctions.bid(id, self._agent.id, Refusal("invalid bid"), self._free())
        if wait is not None:
            self._agent.tending.put_off(wait)

    async def _answer(self, said: Mapping[str, Any]) -> Bid | Refusal:
        claims, capability = self._agent.claims, said["capability"]
        if claims.draining:
            return Refusal("draining")
        if capability in self._agent.lanes.closed:
            return Refusal("withdrawn")
        if capability in self._agent.lanes.paused:
            return Refusal("paused")
        free = self._free()
        if free <= 0:
            return Refusal("full")
        function = self._functions.get(capability)
        if function is None:
            return Bid()
        call = Call(
            said["auction"],
            capability,
            said["payload"],
            said["closes"],
            said["deadline"],
            free,
            claims.slots,
            self._agent.id,
        )
        try:
            if inspect.iscoroutinefunction(function):
                answer = await function(call)
            else:
                answer = await asyncio.to_thread(function, call)
        except Exception as error:
            _log.exception("agent=%s the function that bids for %s failed", self._agent.id, capability)
            return Refusal(f"failed: {told(error)}")
        if not isinstance(answer, Bid | Refusal):
            return Refusal(f"failed: expected a Bid or a Refusal, got {type(answer).__name__}")
        return answer

    async def award(self, message: Message) -> None:
        """An award: reserve a slot and confirm, or decline at once so that the next best gets it."""
        id, award = message.payload["auction"], int(message.payload["award"])
        agent = self._agent
        agent.tending.put_off(message.payload["confirm"] / 1000)
        reserved = not agent.claims.draining and await self._reserve()
        begun = False
        try:
            word, *rest = await self._mesh.auctions.confirm(id, agent.id, award, reserved=reserved)
            if word == "ok":
                begun = self._begin(id, *rest)
            elif reserved:
                _log.info("agent=%s auction=%s the award is no longer its own", agent.id, id)
        finally:
            if reserved and not begun:
                agent.claims.release_slot()

    async def reject(self, message: Message) -> None:
        """Another bid won, or nobody's did. Nothing was held for it."""

    # -- slots

    def _free(self) -> int:
        return max(0, self._agent.claims.open_slots)

    async def _reserve(self) -> bool:
        """Take a slot from the claim loops; False when none is free. A claim under way holds some back for a moment."""
        claims = self._agent.claims
        for _ in range(100):
            if claims.free > 0:
                claims.free -= 1
                return True
            if claims.open_slots <= 0:
                return False
            await asyncio.sleep(0.002)
        return False

    def _begin(self, id: str, entry: str, task: str, attempt: int, failures: int, flat: list[str]) -> bool:
        """Run the work in the reserved slot; False when it runs already (the award was heard twice)."""
        agent, keys = self._agent, self._mesh.keys
        shard = keys.shard_of(id)
        stream = keys.inbox(agent.id, shard)
        if (stream, entry) in agent.claims.held:
            return False
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        held = Held(shard, stream, entry, task, attempt, failures, fields.get("capability", ""), fields)
        agent.claims.held[stream, entry] = held
        agent.claims.claimed += 1
        agent.performer.start(held)
        return True

    # -- for the mesh

    async def tend(self, id: str) -> None:
        """An auction is due: take it a step on, and be there for the next one."""
        wait = await self._mesh.auctions.tend(id)
        if wait is not None:
            self._agent.tending.put_off(wait)

    async def bury(self, dead: Iterable[str]) -> None:
        """Agents died: auctions do not wait for them."""
        try:
            wait = await self._mesh.auctions.tend_all(dead)
        except MeshError as error:
            # Their timers will do it, later.
            _log.warning("agent=%s could not tell the auctions of the dead: %s", self._agent.id, error)
            return
        if wait is not None:
            self._agent.tending.put_off(wait)
