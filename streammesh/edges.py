"""How it goes with each peer that we ask: facts of the edge between it and us, which no registry has."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from streammesh.breaker import Breaker
from streammesh.errors import AgentDied, RemoteError, RequestTimeout

__all__ = ["Edges"]

#: Outcomes that are remembered of a peer, and for how long (seconds).
REMEMBERED, RECENT = 20, 60.0
#: The most peers that facts are told of, and that are remembered.
TOLD, KNOWN = 64, 10_000

_T = TypeVar("_T")


@dataclass(slots=True)
class _Edge:
    breaker: Breaker = field(default_factory=Breaker)
    outcomes: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    latency: float = 0.0

    def note(self, now: float, seconds: float, *, ok: bool) -> None:
        if ok:
            self.latency = seconds if not self.latency else 0.8 * self.latency + 0.2 * seconds
        self.outcomes.append((now, ok))

    def errors(self, now: float) -> float:
        recent = [ok for at, ok in self.outcomes if now - at <= RECENT]
        return 1 - sum(recent) / len(recent) if recent else 0.0


class Edges:
    """The edges from one process to its peers. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def breaker(self, peer: str) -> Breaker:
        """The circuit breaker for a peer."""
        return self._edge(peer).breaker

    async def watch(self, peer: str, asking: Awaitable[_T]) -> _T:
        """Await a request to ``peer``, and note how it went. A handler that failed, a death and silence are failures; a refusal is none."""
        began = time.monotonic()
        try:
            answer = await asking
        except (AgentDied, RequestTimeout, RemoteError):
            self._edge(peer).note(time.monotonic(), 0.0, ok=False)
            raise
        self._edge(peer).note(now := time.monotonic(), now - began, ok=True)
        return answer

    def resting(self, now: float) -> set[str]:
        """The peers whose breaker lets nothing through. Once its rest is over a peer is none of them: it is to be tried."""
        return {peer for peer, edge in self._edges.items() if not edge.breaker.allows(now)}

    def forget(self, peer: str) -> None:
        """It left or died."""
        self._edges.pop(peer, None)

    def facts(self, now: float) -> dict[str, list[float]]:
        """peer -> [latency ms, share of failures, 1 when its breaker is open], coarse on purpose: what hardly changed is the same.

        Of the last 20 outcomes of the last minute; at most 64 peers, those with failures first.
        """
        found = [
            (peer, [_coarse(edge.latency * 1000), round(edge.errors(now), 1), int(not edge.breaker.allows(now))])
            for peer, edge in self._edges.items()
            if edge.outcomes
        ]
        found.sort(key=lambda one: (-one[1][2], -one[1][1], one[0]))
        return dict(found[:TOLD])

    def _edge(self, peer: str) -> _Edge:
        found = self._edges.get(peer)
        if found is None:
            if len(self._edges) >= KNOWN:
                self._edges.clear()
            found = self._edges[peer] = _Edge()
        return found


def _coarse(number: float) -> float:
    """Steps of about a fifth, so that noise makes no news."""
    step = 0.1
    while step * 1.2 < number:
        step *= 1.2
    return round(step, 1)
