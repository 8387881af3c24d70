"""Auctions: work goes to the agent that bids best, and is confirmed by it before it counts as taken.

    auction = await mesh.auction("summarize", text="…", score={"eta": 1, "quality": 2})
    print(await auction.result(timeout=30))

The auction is a record in the server that any agent drives on: whoever opened it may die. It closes as soon as everybody who
was asked has answered, at the latest after ``window``. The best bidder confirms, with a slot reserved, or the next best is
asked; the work then runs as a task in that slot, and moves to the next best when its agent dies. Nothing of this decides
anything outside one atomic script.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streammesh import codec
from streammesh.bids import LONGEST_ID, AuctionRecord, Bid, Bidder, Refusal, Scorer, bidder_of, terms_of
from streammesh.errors import AuctionNotFound, ConfigError, InvalidPayload, MeshError, PayloadConflict, UnknownAgent
from streammesh.keys import Keys, check_id
from streammesh.record import lineage, new_id
from streammesh.registry import AgentInfo, Registry
from streammesh.replies import Answer, Replies
from streammesh.store import Store
from streammesh.tasks import Tasks

__all__ = ["Auction", "Auctions"]

_log = logging.getLogger("streammesh.auctions")


class Auction:
    """A handle on one auction by its id, also after a restart; ``created`` is False when there was one of that id."""

    __slots__ = ("_auctions", "created", "id")

    def __init__(self, auctions: Auctions, id: str, created: bool) -> None:
        self._auctions = auctions
        self.id = id
        self.created = created

    async def result(self, timeout: float | None = None) -> Any:
        """Wait until the work is done and return its result.

        Raises NoBids, AuctionFailed, AuctionCancelled, AuctionExpired, AuctionNotFound, or ResultTimeout after ``timeout`` s.
        """
        return await self._auctions.result(self.id, timeout)

    async def record(self) -> AuctionRecord:
        """The auction with its bids. Raises AuctionNotFound."""
        return await self._auctions.record(self.id)

    async def audit(self) -> list[dict[str, str]]:
        """What happened, oldest first: each with its type and time."""
        return await self._auctions.audit(self.id)

    async def cancel(self, *, by: str = "client") -> str:
        """Cancel: 'ok' at once while nobody works on it, 'running <agent>' when that was asked to stop, 'closed <state>'."""
        return await self._auctions.cancel(self.id, by=by)

    def __repr__(self) -> str:
        return f"Auction({self.id!r})"


class Auctions:
    """The room of auctions in one mesh."""

    def __init__(self, store: Store, keys: Keys, replies: Replies, tasks: Tasks, registry: Registry) -> None:
        self._store = store
        self._keys = keys
        self._replies = replies
        self._tasks = tasks
        self._registry = registry
        self._scoring: set[asyncio.Task[None]] = set()

    def _prefix(self, id: str) -> list[str]:
        return [self._keys.prefix(self._keys.shard_of(id))]

    # -- for clients

    async def eligible(self, capability: str, bidders: Iterable[str] | None = None) -> list[str]:
        """The ids of the agents that may bid now: ready, offering the capability, and (if given) among ``bidders``.

        Ids and names are understood. Raises UnknownAgent for one that is nobody's, or does not offer the capability.
        """
        able = [one for one in await self._registry.agents() if _able(one, capability)]
        if bidders is None:
            return sorted(one.id for one in able)
        chosen: set[str] = set()
        for wanted in bidders:
            found = {one.id for one in able if wanted in (one.id, one.name)}
            if not found:
                raise UnknownAgent(f"no live agent with the id or name {wanted!r} offers {capability!r}")
            chosen |= found
        return sorted(chosen)

    async def open(
        self,
        capability: str,
        payload: Mapping[str, Any],
        *,
        bidders: Iterable[str] | None = None,
        window: float = 2.0,
        confirm: float = 1.0,
        score: Mapping[str, float] | Scorer | None = None,
        min_score: float | None = None,
        fallback: str = "queue",
        id: str | None = None,
        deadline: float | None = None,
    ) -> Auction:
        """Open an auction among those who are eligible now; atomic, and with an ``id`` safe to repeat.

        ``bidders`` are ids or names (all that offer the capability), ``window`` the seconds for bids, ``confirm`` those for
        a winner to confirm. ``score`` weighs eta, cost, quality, free and history, or is a function of the bids that gives
        a number for each; below ``min_score`` nobody wins. With nobody to win the task goes to the capability's ``queue``,
        or with "none" the result raises NoBids. ``deadline`` is seconds until the work expires.
        Raises PayloadConflict for a known id with another capability or payload, UnknownAgent, ConfigError.
        """
        id = check_id(id, "auction id") if id is not None else new_id()
        if len(id) > LONGEST_ID:
            raise ConfigError(f"auction id {id!r} is not usable: it has {len(id)} characters, {LONGEST_ID} are allowed")
        terms = terms_of(
            capability, payload, window=window, confirm=confirm, score=score, min_score=min_score, fallback=fallback, deadline=deadline
        )  # fmt: skip
        line = lineage.get()
        if line is not None:
            terms |= {"correlation": line.correlation, "causation": line.causation, "traceparent": line.traceparent}
        hear: Callable[[Answer], None] | None = None
        if callable(score):
            terms["scorer"] = self._replies.client
            hear = self._scorer(id, score)
            self._replies.watch(f"auction {id}", hear)
        flat = [item for pair in terms.items() for item in pair]
        word: str = await self._store.run(
            "auction_open", self._prefix(id), [id, len(terms), *flat, *await self.eligible(capability, bidders)]
        )
        if word != "ok" and hear is not None:
            self._replies.unwatch(f"auction {id}", hear)
        if word.startswith("conflict"):
            raise PayloadConflict(
                f"auction {id} is there already ({word.partition(' ')[2]}) with another capability or payload; use another id"
            )
        return Auction(self, id, word == "ok")

    async def result(self, id: str, timeout: float | None = None) -> Any:
        """See `Auction.result`. Meanwhile this client drives the auction on, as any agent does."""
        driver = asyncio.create_task(self._drive(id))
        try:
            return await self._tasks.results.result(f"auction {check_id(id, 'auction id')}", timeout)
        finally:
            driver.cancel()

    async def _drive(self, id: str) -> None:
        while True:
            try:
                left = await self.tend(id)
            except MeshError:
                left = 1.0
            if left is None:
                return
            await asyncio.sleep(left + 0.002)

    async def record(self, id: str) -> AuctionRecord:
        """The auction with its bids, best first. Raises AuctionNotFound."""
        key = self._keys.auction(check_id(id, "auction id"))
        flat, bids = await self._store.commands([("HGETALL", key), ("HGETALL", f"{key}:bids")])
        if not flat:
            raise AuctionNotFound(
                f"there is no auction {id}: never opened in this mesh, or ended longer ago than its retention", id=id
            )
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        scores = codec.decode(fields["scores"]) if "scores" in fields else {}
        answers = [
            bidder_of(agent, codec.decode(said), scores) for agent, said in zip(bids[::2], bids[1::2], strict=True)
        ]
        place = {agent: at for at, agent in enumerate(fields.get("ranking", "").split())}
        answers.sort(key=lambda one: (place.get(one.agent, len(place)), one.kind, one.agent))
        return AuctionRecord(id, fields, tuple(answers))

    async def audit(self, id: str) -> list[dict[str, str]]:
        """What happened in the auction, oldest first."""
        entries = await self._store.command(
            "XRANGE", f"{self._keys.auction(check_id(id, 'auction id'))}:audit", "-", "+"
        )
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]

    async def cancel(self, id: str, *, by: str = "client") -> str:
        """See `Auction.cancel`; 'missing' for one that is not known."""
        word = str(await self._store.run("auction_cancel", self._prefix(id), [check_id(id, "auction id"), by]))
        # The agent that runs the work is told as it is of any task.
        return (await self._tasks.cancel([f"{id}:work"], by=by))[0] if word.startswith("running ") else word

    async def unfinished(self, limit: int = 1000) -> list[AuctionRecord]:
        """Auctions that have not ended, oldest first, without their bids."""
        found: list[tuple[int, AuctionRecord]] = []
        for shard in range(self._keys.shards):
            prefix = self._keys.prefix(shard)
            flat = await self._store.command("ZRANGE", f"{prefix}auctions", 0, limit - 1, "WITHSCORES")
            replies = await self._store.commands([("HGETALL", f"{prefix}auction:{id}") for id in flat[::2]])
            for id, at, fields in zip(flat[::2], flat[1::2], replies, strict=True):
                if fields:
                    record = AuctionRecord(id, dict(zip(fields[::2], fields[1::2], strict=True)))
                    found.append((int(float(at)), record))
        return [record for _, record in sorted(found, key=lambda one: one[0])[:limit]]

    # -- the initiator's own scores

    def _scorer(self, id: str, score: Scorer) -> Callable[[Answer], None]:
        def hear(answer: Answer) -> None:
            if answer.state == "nudge deciding":
                task = asyncio.create_task(self._score(id, score))
                self._scoring.add(task)
                task.add_done_callback(self._scoring.discard)
            else:
                self._replies.unwatch(f"auction {id}", hear)

        return hear

    async def _score(self, id: str, score: Scorer) -> None:
        """Rank the bids; when this fails, the default weights decide after the time of a confirmation."""
        try:
            record = await self.record(id)
            bids = [one for one in record.bids if one.kind == "bid"]
            scores = score(await self._with_history(record, bids))
            if not isinstance(scores, Sequence):
                scores = await scores
            if len(scores) != len(bids):
                raise InvalidPayload(f"the scorer gave {len(scores)} scores for {len(bids)} bids")
            flat = [item for one, said in zip(bids, scores, strict=True) for item in (one.agent, repr(float(said)))]
            word = await self._store.run("auction_award", self._prefix(id), [id, *flat])
            if word == "invalid":
                raise InvalidPayload(f"the scorer gave something that is no number: {list(scores)}")
        except Exception as error:
            _log.warning("auction %s: the scorer failed, the default weights decide: %s", id, error)

    async def _with_history(self, record: AuctionRecord, bids: Sequence[Bidder]) -> list[Bidder]:
        key = f"{self._prefix(record.id)[0]}history:{record.capability}"
        clock, *said = await self._store.commands(
            [("TIME",), *(("HGET", key, one.agent.rpartition(".")[0]) for one in bids)]
        )
        found = []
        for one, text in zip(bids, said, strict=True):
            good, works, at = (float(word) for word in (text or "0 0 0").split())
            # As the scripts forget: half as heavy an hour later.
            weight = 0.5 ** (max(0.0, int(clock[0]) - at / 1000) / 3600)
            found.append(replace(one, history=(good * weight + 1) / (works * weight + 1)))
        return found

    # -- for agents

    async def bid(self, id: str, bidder: str, answer: Bid | Refusal, free: int) -> tuple[str, float | None]:
        """Answer a call as ``bidder`` with ``free`` slots: ('ok' | 'late' | 'foreign' | 'invalid' | 'missing', seconds until
        the auction should be looked at, or None)."""
        args: list[Any] = [id, bidder]
        if isinstance(answer, Bid):
            args += ("bid", _number(answer.eta), _number(answer.cost), _number(answer.quality), free, "")
        else:
            args += ("refusal", "", "", "", free, answer.reason.encode()[:500].decode(errors="ignore"))
        word, wait = await self._store.run("auction_bid", self._prefix(id), args)
        return str(word), _seconds(wait)

    async def confirm(self, id: str, agent: str, award: int, *, reserved: bool) -> list[Any]:
        """Take or decline an award; the reply of `auction_confirm`."""
        verb = "confirm" if reserved else "decline"
        return list(await self._store.run("auction_confirm", self._prefix(id), [id, agent, award, verb]))

    async def tend(self, id: str, dead: Iterable[str] = ()) -> float | None:
        """Take an auction a step on if its time has come; seconds until it should be looked at again, None for never."""
        return _seconds(await self._store.run("auction_tend", self._prefix(id), [id, *dead]))

    async def tend_all(self, dead: Iterable[str]) -> float | None:
        """Tell every unfinished auction that these agents died; seconds until the next should be looked at."""
        waits = [
            _seconds(await self._store.run("auction_tend", [self._keys.prefix(shard)], ["", *dead]))
            for shard in range(self._keys.shards)
        ]
        return min((wait for wait in waits if wait is not None), default=None)


def _able(one: AgentInfo, capability: str) -> bool:
    return one.state == "ready" and capability in one.capabilities


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _seconds(wait: Any) -> float | None:
    return None if wait in ("", b"") else int(wait) / 1000
