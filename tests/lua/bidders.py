"""The scripts of auctions under readable names: capability `x`, bidders `b1.1`, `b2.2` … in one shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.lua.shard import LEASE, Shard

THREE = ("b1.1", "b2.2", "b3.3")


class Sale:
    """The auctions of one shard; `a` is meant where none is named."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def open(self, id: str = "a", bidders: Sequence[str] = THREE, **terms: Any) -> str:
        said = {
            "capability": "x", "payload": "{}", "window": LEASE, "confirm": LEASE, "weights": '{"eta":1,"history":1}', "fallback": "none",
            **terms,
        }  # fmt: skip
        flat = [word for pair in said.items() for word in pair]
        return str(self.shard.run("auction_open", id, len(said), *flat, *bidders))

    def bid(self, bidder: str, id: str = "a", *, kind: str = "bid", eta: Any = "", cost: Any = "", quality: Any = "", free: Any = 1, reason: str = "") -> str:  # fmt: skip
        return str(self.shard.run("auction_bid", id, bidder, kind, eta, cost, quality, free, reason)[0])

    def refuse(self, bidder: str, id: str = "a", reason: str = "full") -> str:
        return self.bid(bidder, id, kind="refusal", free="", reason=reason)

    def all_bid(self, id: str = "a", bidders: Sequence[str] = THREE) -> None:
        """The first is best."""
        for eta, bidder in enumerate(bidders, 1):
            assert self.bid(bidder, id, eta=eta) == "ok"

    def score(self, scores: Mapping[str, Any], id: str = "a") -> str:
        return str(self.shard.run("auction_award", id, *(word for pair in scores.items() for word in pair)))

    def confirm(self, agent: str = "", id: str = "a", *, award: str = "", verb: str = "confirm") -> list[Any]:
        record = self.record(id)
        return list(
            self.shard.run("auction_confirm", id, agent or record["winner"], award or record.get("award", ""), verb)
        )

    def tend(self, id: str = "a", *dead: str) -> str:
        return str(self.shard.run("auction_tend", id, *dead))

    def cancel(self, id: str = "a") -> str:
        return str(self.shard.run("auction_cancel", id, "tests"))

    def pass_time(self, id: str = "a", field: str = "due") -> None:
        """What it waits for is over."""
        self.shard.redis.hset(self.shard.key(f"auction:{id}"), field, "1")

    def working(self, id: str = "a", **terms: Any) -> list[Any]:
        """Open, all have bid, the first has confirmed."""
        assert self.open(id, **terms) == "ok"
        self.all_bid(id)
        got = self.confirm(id=id)
        assert got[0] == "ok"
        return got

    def finish(self, got: Sequence[Any], agent: str, verb: str = "complete", a: Any = "1", b: Any = 60_000) -> str:
        """The agent settles the work that `got` (a confirmation) gave it."""
        _, entry, task, attempt, *_ = got
        words = self.shard.run(
            "task_settle", agent, 1, 2, entry, task, attempt, verb, a, b, "", streams=[f"inbox:{agent}"]
        )
        return str(words[0])

    def record(self, id: str = "a") -> dict[str, str]:
        return dict(self.shard.redis.hgetall(self.shard.key(f"auction:{id}")))

    def state(self, id: str = "a") -> str:
        return self.record(id).get("state", "gone")

    def bids(self, id: str = "a") -> dict[str, Any]:
        return {
            who: json.loads(said)
            for who, said in self.shard.redis.hgetall(self.shard.key(f"auction:{id}:bids")).items()
        }

    def audit(self, id: str = "a") -> list[str]:
        return [fields["type"] for fields in self.shard.entries(f"auction:{id}:audit").values()]

    def mail(self, agent: str) -> list[str]:
        return [fields["type"] for fields in self.shard.entries(f"mail:{agent}").values()]

    def answers(self, client: str = "c-1") -> list[dict[str, str]]:
        return [dict(fields) for fields in self.shard.entries(f"replies:{client}").values()]
