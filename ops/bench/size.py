"""How much of everything a run does: the size that figures are quoted at, and one that only shows that all of it runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "TINY", "Size"]


@dataclass(frozen=True, slots=True)
class Size:
    """Counts and durations of one round. ``slots`` are those of the agents in the throughput and memory cases.

    ``patience`` is how many seconds a case waits for a quiet machine, before it begins all the same.
    A crowd gets ``crowd_drain`` tasks: with few for each, one would see only how it begins and ends.
    """

    rounds: int = 5
    slots: int = 256
    drain: int = 30_000
    crowd: int = 40
    crowd_drain: int = 120_000
    toil: int = 6_000
    enqueue: int = 5_000
    bulk: int = 50_000
    calls: int = 1_000
    rate: float = 500.0
    steady: int = 2_500
    stored: int = 50_000
    retention: float = 15.0
    idle: float = 10.0
    million: int = 1_000_000
    patience: float = 15.0
    held: int = 100
    leases: tuple[float, ...] = (10.0, 2.0)
    flows: int = 4_000
    chains: int = 200
    fan: int = 1_000
    parked: int = 5_000
    many: int = 100_000
    timers: int = 10_000
    takeovers: int = 3
    chained: int = 50
    beside: int = 500
    auctions: int = 100
    votes: int = 200


FULL = Size()
TINY = Size(
    rounds=1, slots=8, drain=200, crowd=3, crowd_drain=200, toil=50, enqueue=20, bulk=50, calls=5, steady=20, stored=100, retention=1.0, idle=0.5,
    million=400, patience=0.0, held=3, leases=(0.5,), flows=20, chains=3, fan=10, parked=5, many=8, timers=10, takeovers=1, chained=4, auctions=3, beside=10, votes=5,
)  # fmt: skip
