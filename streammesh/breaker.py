"""A circuit breaker for one peer: after failures it is left in peace for a while, then tried with one request.

Pure: the time is given with every call, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["Breaker"]


@dataclass(slots=True)
class Breaker:
    """Closed: all requests pass. Open: none. Half open, once its rest is over: one, whose outcome decides.

    It opens when at least ``least`` of the last ``window`` outcomes are known and half of them or more failed. Its rest is
    ``rest`` seconds, doubled by each probe that fails, up to ``longest``.
    """

    window: int = 10
    least: int = 4
    rest: float = 5.0
    longest: float = 60.0
    _outcomes: deque[bool] = field(default_factory=deque)
    _until: float | None = None
    _resting: float = 0.0
    _probing: bool = False

    @property
    def state(self) -> str:
        """closed, open or half-open (a probe is under way)."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probing else "open"

    def allows(self, now: float) -> bool:
        """Whether a request may be sent now; asking changes nothing."""
        return self._until is None or (now >= self._until and not self._probing)

    def begin(self, now: float) -> None:
        """A request is sent. While open it is the probe."""
        if self._until is not None and now >= self._until:
            self._probing = True

    def succeeded(self) -> None:
        """A request was answered, in whatever words: the peer is well, and what was is forgotten."""
        if self._until is not None:
            self._outcomes.clear()
            self._until, self._resting, self._probing = None, 0.0, False
        self._note(False)

    def failed(self, now: float) -> None:
        """A request was not answered."""
        if self._until is not None:
            # Those sent before it opened say nothing new.
            if self._probing:
                self._open(now)
            return
        self._note(True)
        if len(self._outcomes) >= self.least and 2 * sum(self._outcomes) >= len(self._outcomes):
            self._open(now)

    def forget(self) -> None:
        """The request ended without a word on the peer: cancelled by the caller. A probe may be made anew."""
        self._probing = False

    def _note(self, failed: bool) -> None:
        self._outcomes.append(failed)
        if len(self._outcomes) > self.window:
            self._outcomes.popleft()

    def _open(self, now: float) -> None:
        self._resting = min(self.longest, 2 * self._resting or self.rest)
        self._until = now + self._resting
        self._probing = False
