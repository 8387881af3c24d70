"""Votes, and collections of answers: opened, answered and closed by single scripts, whoever calls them.

A vote has a fixed electorate, a quorum and a deadline, and ends in one decision that is written once. The opener may die: any
agent closes it when its time has come, and the ballot that decides it closes it at once. It is a quorum vote with a record,
not a consensus protocol: agreement comes from the one server, which puts the ballots in an order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from streammesh import codec, tally
from streammesh.errors import BallotRefused, InvalidVote, NoVoters, VoteConflict, VoteError, VoteNotFound
from streammesh.keys import Keys, check_id
from streammesh.moments import iso
from streammesh.motions import (
    Collected,
    Decision,
    Gathering,
    Motion,
    Poll,
    Voters,
    collected,
    said_of,
    weighed,
    words_of,
)
from streammesh.record import lineage, new_id
from streammesh.registry import Registry
from streammesh.replies import Replies
from streammesh.store import Store

__all__ = ["Receipt", "Recount", "VoteRecord", "Votes"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a ballot: 'ok' or 'invalid' (kept, not counted); the vote's state, and seconds until it is looked at again."""

    word: str
    state: str
    left: float


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """A vote as it is in the server: its hash, the ballots in words, and the audit, oldest first."""

    id: str
    fields: Mapping[str, str]
    ballots: Mapping[str, str]
    audit: tuple[Mapping[str, str], ...]

    @property
    def state(self) -> str:
        return self.fields["state"]

    @property
    def method(self) -> str:
        return self.fields["method"]

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(self.fields[f"option.{n}"] for n in range(1, int(self.fields["options"]) + 1))

    @property
    def electorate(self) -> tuple[tuple[str, int], ...]:
        words = self.fields["electorate"].split()
        return tuple((agent, int(weight)) for agent, weight in zip(words[::2], words[1::2], strict=True))

    @property
    def decision(self) -> Decision | None:
        """None while it is open, and for a collection of answers."""
        if "result" not in self.fields or self.method == "collect":
            return None
        return Decision.of(codec.decode(self.fields["result"], what="decision"), self.options)

    def shown(self, words: str) -> str:
        """A ballot for people: options by their text."""
        kind, _, rest = words.partition(" ")
        if kind == "veto":
            return f"veto {self.options[int(rest) - 1]}"
        return ", ".join(self.options[int(n) - 1] for n in words.split()) if kind.isdigit() else words


@dataclass(frozen=True, slots=True)
class Recount:
    """A vote counted again from its audit, ballot by ballot, and what the record says."""

    outcome: str
    winner: str | None
    support: int
    record: Decision

    @property
    def agrees(self) -> bool:
        return (self.outcome, self.winner, self.support) == (
            self.record.outcome,
            self.record.winner,
            self.record.support,
        )


class Votes:
    """The room of votes in one mesh."""

    def __init__(self, store: Store, keys: Keys, replies: Replies, registry: Registry) -> None:
        self._store = store
        self._keys = keys
        self._replies = replies
        self._registry = registry

    # -- to put something to the vote

    async def vote(
        self, question: str, options: Sequence[str], *, voters: Voters = None, id: str | None = None, **rules: Unpack[Poll]
    ) -> Decision:  # fmt: skip
        """Open a vote and wait for its decision; see `Mesh.vote`."""
        motion = Motion.make(question, options, **rules)
        electorate = await self.electorate(voters, topic=motion.topic)
        id = check_id(id, "vote id") if id is not None else new_id()
        said = await self._result(id, motion.fields(id, electorate, weighted=isinstance(voters, Mapping)))
        return Decision.of(said, motion.options)

    async def open(
        self, motion: Motion, electorate: Mapping[str, int], *, id: str | None = None, weighted: bool = False
    ) -> str:
        """Open a vote and return its id at once; with a known ``id`` and the same motion there is no second one.

        Atomic: the voters are asked in the script that opens it. Raises InvalidVote, VoteConflict.
        """
        id = check_id(id, "vote id") if id is not None else new_id()
        await self._open(id, motion.fields(id, electorate, weighted=weighted))
        return id

    async def _open(self, id: str, fields: Mapping[str, str | bytes | int]) -> tuple[str, float]:
        """Open it, or be told of it; its result as JSON ('' while it is open), and seconds in which it should come."""
        line = lineage.get()
        about = {
            "source": f"client-{self._replies.client}", "waiters": self._replies.client, "correlation": line.correlation if line else id,
            "causation": line.causation if line else "",
        }  # fmt: skip
        if line is not None:
            about["traceparent"] = line.traceparent
        flat = [item for pair in {**fields, **about}.items() for item in pair]
        word, state, text = await self._store.run("vote_open", [self._prefix(id)], [id, *flat])
        if word == "conflict":
            raise VoteConflict(
                f"there is another vote {id} ({state}), on another question or by other rules; use another id"
            )
        return str(text), int(fields["lasts"]) / 1000 if word == "ok" else 0.0

    async def electorate(self, voters: Voters, *, topic: str = "", type: str = "") -> dict[str, int]:
        """Who votes, as agent -> weight, by the registry as it is now.

        Raises NoVoters, UnknownAgent, InvalidVote (an agent twice, weights that are none).
        """
        if voters is None or isinstance(voters, str):
            able = {one.id: 1 for one in sorted(await self._registry.agents(), key=lambda one: one.id)
                    if one.state == "ready" and (voters in one.capabilities if voters else topic in one.topics or type in one.types)}  # fmt: skip
            if not able:
                what = (
                    f"offers capability {voters!r}"
                    if voters
                    else f"votes on topic {topic!r}"
                    if topic
                    else f"has a handler for {type!r}"
                )
                raise NoVoters(f"no live agent {what}; see `streammesh agents ls`")
            return weighed(able)
        chosen = voters if isinstance(voters, Mapping) else dict.fromkeys(voters, 1)
        if len(chosen) < len(voters):
            raise InvalidVote("an agent is there twice; each votes once (give it a weight instead)")
        found: dict[str, int] = {}
        for who, weight in chosen.items():
            agent = (await self._registry.resolve(who)).id
            if agent in found:
                raise InvalidVote(f"{who} is {agent}, which is there already; each votes once")
            found[agent] = weight
        return weighed(found)

    async def decision(self, id: str) -> Decision:
        """Wait for the decision of a vote. Raises VoteNotFound."""
        said = await self._result(id)
        return Decision.of(said, (await self.record(id)).options)

    async def _result(self, id: str, fields: Mapping[str, str | bytes | int] | None = None) -> dict[str, Any]:
        """Open it with ``fields``, if given, and wait until it is closed; it is closed from here when its time has come."""
        name = f"vote {id}"
        future = self._replies.expect(name)
        try:
            text, left = await self._open(id, fields) if fields is not None else ("", 0.0)
            while not text:
                if left > 0:
                    # A millisecond late rather than early: the server's clock has the last word.
                    await asyncio.wait((future,), timeout=left + 0.001)
                    if future.done():
                        text = future.result().value or ""
                        future = future if text else self._replies.expect(name)
                if not text:
                    text, left = await self._look(id)
            return codec.decode_object(text, what="decision", limit=64 * 1024 * 1024)
        finally:
            self._replies.forget(name, future)

    async def _look(self, id: str) -> tuple[str, float]:
        # On its list first: between the two it may be closed.
        await self._store.run("task_wait", [self._prefix(id)], [self._replies.client, f"vote {id}"])
        state, text, left = await self.close(id, by=f"client-{self._replies.client}")
        if state == "missing":
            raise _missing(id)
        return text, left

    # -- ballots, closing

    async def cast(
        self, id: str, agent: str, ballot: str, said: bytes = b"null", *, round: str = "", refused: bool = True
    ) -> Receipt:
        """Cast a ballot in words for ``agent``. Raises VoteNotFound, and BallotRefused unless ``refused=False``. Safe to repeat."""
        word, state, left = await self._store.run("vote_cast", [self._prefix(id)], [id, agent, round, ballot, said])
        if word == "missing":
            raise _missing(id)
        if refused and word not in ("ok", "invalid"):
            why = {
                "foreign": f"{agent} is not in its electorate",
                "duplicate": f"{agent} has voted already",
                "closed": f"it is {state}",
            }
            raise BallotRefused(f"vote {id} did not take the ballot: {why.get(word, word)}", word=word)
        return Receipt(word, state, float(left) / 1000)

    async def choose(self, id: str, agent: str, choice: Any) -> Receipt:
        """Cast a ballot for ``agent``: an option, a list of them, a Veto, or None to abstain. Raises InvalidVote, BallotRefused."""
        options = (await self.record(id)).options
        words = words_of(choice, options)
        if words.startswith("invalid "):
            raise InvalidVote(f"vote {id} has {words[8:]}; expected one of {', '.join(map(repr, options))}")
        return await self.cast(id, agent, words, said_of(choice))

    async def close(self, id: str, *, by: str) -> tuple[str, str, float]:
        """Close a vote if its time has come: its state ('missing'), its result as JSON ('' while open), seconds left."""
        state, result, left = await self._store.run("vote_close", [self._prefix(id)], [id, by, ""])
        return str(state), str(result), float(left) / 1000

    async def cancel(self, id: str, *, by: str = "client") -> str:
        """Close an open vote as cancelled; returns its state, which is another one if it was closed before. Raises VoteNotFound."""
        state, _, _ = await self._store.run("vote_close", [self._prefix(id)], [id, by, "1"])
        if state == "missing":
            raise _missing(id)
        return str(state)

    def _prefix(self, id: str) -> str:
        return self._keys.prefix(self._keys.shard_of(check_id(id, "vote id")))

    # -- what is there

    async def record(self, id: str) -> VoteRecord:
        """The whole of a vote. Raises VoteNotFound."""
        key = self._keys.vote(check_id(id, "vote id"))
        head, ballots, audit = await self._store.commands(
            [("HGETALL", key), ("HGETALL", f"{key}:ballots"), ("XRANGE", f"{key}:audit", "-", "+")]
        )
        if not head:
            raise _missing(id)
        return VoteRecord(id, _pairs(head), _pairs(ballots), tuple(_pairs(flat) for _, flat in audit))

    async def listed(self, limit: int = 50) -> list[tuple[str, dict[str, str]]]:
        """The newest votes and collections that are kept, each with its fields, in the order of their opening, newest first."""
        found: list[tuple[str, dict[str, str]]] = []
        for shard in range(self._keys.shards):
            ids = await self._store.command("ZRANGE", self._keys.votes(shard), -limit, -1)
            heads = await self._store.commands([("HGETALL", self._keys.vote(id)) for id in ids])
            found += [(id, _pairs(flat)) for id, flat in zip(ids, heads, strict=True) if flat]
        return sorted(found, key=lambda one: one[1]["opened_at"], reverse=True)[:limit]

    async def recount(self, id: str) -> Recount:
        """Count a closed vote again, from its audit and by other code than the first time. Raises VoteNotFound, VoteError."""
        record = await self.record(id)
        if record.decision is None:
            raise VoteError(
                f"{id} is {'a collection of answers' if record.method == 'collect' else 'still open'}; there is nothing to count again"
            )
        return _recounted(record, record.decision)

    # -- collecting

    async def collect(
        self, type: str, payload: Any = None, *, to: Voters = None, id: str | None = None, expected: int | None = None,
        at_least: int = 1, timeout: float = 30.0, stall: float | None = None,
    ) -> Collected:  # fmt: skip
        """Ask many agents and gather their answers; see `Mesh.collect`."""
        gathering = Gathering.make(type, payload, expected=expected, at_least=at_least, timeout=timeout, stall=stall)
        asked = await self.electorate(to, type=gathering.type)
        id = check_id(id, "collection id") if id is not None else new_id()
        return collected(await self._result(id, gathering.fields(asked)), gathering.at_least)


def _missing(id: str) -> VoteNotFound:
    return VoteNotFound(f"there is no vote {id}: never opened in this mesh, or closed more than a day ago")


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _recounted(record: VoteRecord, said: Decision) -> Recount:
    rules = tally.Rules.of_fields(
        {**record.fields, "round": "1", "eligible": " ".join(map(str, range(1, len(record.options) + 1)))}
    )
    ballots: dict[str, str] = {}
    cancelled = False
    for entry in record.audit:
        match entry["type"]:
            case "ballot":
                ballots[entry["agent"]] = entry["ballot"]
            case "dead":
                ballots[entry["agent"]] = "dead"
            case "runoff":
                ballots = {agent: words for agent, words in ballots.items() if words == "dead"}
                rules = tally.Rules.of_fields({**record.fields, "round": "2", "eligible": entry["eligible"]})
            case "close":
                cancelled = entry["outcome"] == "cancelled"
    electorate = record.electorate
    standing = tally.stand(rules, electorate, ballots)
    # The clock alone is taken from the record: that nobody was waited for any longer.
    late = said.at >= iso(int(record.fields["deadline"]))
    verdict = tally.judge(rules, electorate, ballots, final=late)
    if cancelled:
        verdict = tally.Verdict("cancelled", 0, "")
    outcome, winner = (verdict.outcome, verdict.winner) if verdict else ("open", 0)
    support = standing.support.get(winner, 0) if winner else standing.best
    return Recount(outcome, record.options[winner - 1] if winner else None, support, said)
