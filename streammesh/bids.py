"""What an auction is about: the call, a bid, a refusal, and what was made of them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streammesh import codec
from streammesh.errors import ConfigError
from streammesh.keys import check_name

__all__ = [
    "ENDED",
    "LONGEST_ID",
    "OPTIONS",
    "WEIGHTS",
    "AuctionRecord",
    "Bid",
    "Bidder",
    "Call",
    "Refusal",
    "Scorer",
    "bidder_of",
    "terms_of",
]

#: What a score is made of, and how heavy each term is unless the initiator says otherwise.
WEIGHTS: Mapping[str, float] = {"eta": 1.0, "cost": 1.0, "quality": 1.0, "history": 1.0}
#: The terms that weights may name.
TERMS = frozenset(("eta", "cost", "quality", "free", "history"))
#: What may be said of an auction besides its payload.
OPTIONS = ("bidders", "window", "confirm", "score", "min_score", "fallback", "id", "deadline")
#: The longest id: that of the work is made of it, and a run's path may come before.
LONGEST_ID = 120
#: States in which an auction is over.
ENDED = frozenset(("done", "failed", "cancelled", "expired", "no_bids", "all_refused"))


@dataclass(frozen=True, slots=True)
class Call:
    """A call for bids, as a bidder gets it. ``closes`` and ``deadline`` are ms since 1970 by the server's clock; ``free`` is
    how many slots the bidder has free now, ``bidder`` who is asked."""

    auction: str
    capability: str
    payload: Mapping[str, Any]
    closes: int
    deadline: int | None
    free: int
    slots: int
    bidder: str = ""


@dataclass(frozen=True, slots=True)
class Bid:
    """An offer: ``eta`` in seconds, ``cost`` and ``quality`` in the mesh's own units; numbers from 0, None for not said."""

    eta: float | None = None
    cost: float | None = None
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """No offer; ``reason`` is for people (up to 500 bytes)."""

    reason: str = "refused"


@dataclass(frozen=True, slots=True)
class Bidder:
    """What one bidder answered: ``kind`` is bid, refusal or dead; ``score`` is None where it was not ranked."""

    agent: str
    kind: str
    eta: float | None = None
    cost: float | None = None
    quality: float | None = None
    free: int = 0
    reason: str = ""
    #: How often its works went well, 0 to 1 (1: nothing is known against it); only for scorers.
    history: float = 1.0
    score: float | None = None


Scorer = Callable[[Sequence[Bidder]], Sequence[float] | Awaitable[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class AuctionRecord:
    """An auction as the server has it. ``fields`` holds every field as text, ``bids`` the answers, best first."""

    id: str
    fields: Mapping[str, str]
    bids: tuple[Bidder, ...] = field(default=())

    @property
    def state(self) -> str:
        """open, deciding, awarded, working, queued; or at its end done, failed, cancelled, expired, no_bids, all_refused."""
        return self.fields["state"]

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def capability(self) -> str:
        return self.fields.get("capability", "")

    @property
    def winner(self) -> str:
        """The agent to which it was awarded last; '' when the work went to the capability's queue."""
        return self.fields.get("winner", "")

    @property
    def reason(self) -> str:
        """Why nobody took it, where nobody did: no_bids, all_refused, no_acceptable_bid, nobody_confirmed, deadline."""
        return self.fields.get("reason", "")

    @property
    def bidders(self) -> tuple[str, ...]:
        """Those who were asked."""
        return tuple(self.fields.get("bidders", "").split())

    @property
    def result(self) -> Any:
        return codec.decode(self.fields["result"], what="result") if "result" in self.fields else None

    @property
    def error(self) -> str:
        return self.fields.get("error", "")

    @property
    def task(self) -> str:
        """The id of the task that the work is, once it is confirmed or queued."""
        return f"{self.id}:work"


def terms_of(
    capability: str,
    payload: Mapping[str, Any],
    *,
    window: float,
    confirm: float,
    score: Mapping[str, float] | Scorer | None,
    min_score: float | None,
    fallback: str,
    deadline: float | None,
) -> dict[str, Any]:
    """What `auction_open` is told, checked. Seconds become ms. Raises ConfigError, InvalidPayload."""
    check_name(capability, "capability")
    for name, value in (("window", window), ("confirm", confirm), ("deadline", deadline)):
        if value is not None and not 0.001 <= value < 10**8:
            raise ConfigError(f"{name}={value!r} is not usable: expected seconds from 0.001")
    if fallback not in ("queue", "none"):
        raise ConfigError(f"fallback={fallback!r} is not known; expected 'queue' or 'none'")
    if min_score is not None and not math.isfinite(min_score):
        raise ConfigError(f"min_score={min_score!r} is not usable: expected a number")
    weights = dict(score) if isinstance(score, Mapping) else dict(WEIGHTS)
    for term, weight in weights.items():
        if term not in TERMS or not 0 <= weight <= 10**6:
            raise ConfigError(
                f"score={{{term!r}: {weight!r}}} is not usable: expected weights from 0 for {', '.join(sorted(TERMS))}"
            )
    terms: dict[str, Any] = {
        "capability": capability, "payload": codec.encode(dict(payload), sort=True), "window": int(window * 1000),
        "confirm": int(confirm * 1000), "weights": codec.encode(weights), "fallback": fallback,
    }  # fmt: skip
    if min_score is not None:
        terms["min_score"] = repr(float(min_score))
    if deadline is not None:
        terms["deadline"] = int(deadline * 1000)
    return terms


def bidder_of(agent: str, said: Mapping[str, Any], scores: Mapping[str, float]) -> Bidder:
    """The answer ``said`` of ``agent`` as it is in the server."""
    return Bidder(
        agent, said["kind"], said.get("eta"), said.get("cost"), said.get("quality"), int(said.get("free", 0)), said.get("reason", ""),
        score=scores.get(agent),
    )  # fmt: skip
