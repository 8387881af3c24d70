"""Whom to doubt: a peer that is late, fails, or is doubted by others is suspect; suspicion is for routing alone, and ends by itself.

Pure: no clock, no I/O. All times are seconds on one clock of the caller's (the server's, best). Work moves only when a
lease has ended, by the server's clock: nothing here can bury anybody. What an agent thinks of itself comes first: one
whose own loop stood still sees everybody late, so its thresholds stretch and its verdicts wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Health", "Judgement", "Suspicion"]

#: Intervals between beats that are remembered of each peer; fewer than `FEW` say nothing about its habits.
REMEMBERED, FEW = 100, 3
#: The worst that an observer may think of itself: thresholds are then nine times as long.
WORST = 8
#: Ticks in time before an observer that had stood still judges again.
CLEAN = 3
#: As few late peers as these are no mass, however many they are of all.
FEW_LATE = 3


class Health:
    """What an observer thinks of its own punctuality. ``tick`` is the interval in seconds at which it means to look.

    Each gap between two ticks that is longer than meant by more than ``slack`` seconds, and each failed beat, makes the
    score one worse; `CLEAN` ticks in time make it one better.
    """

    def __init__(self, tick: float, slack: float) -> None:
        self._tick = tick
        self._slack = slack
        self._last: float | None = None
        self._clean = CLEAN
        self.score = 0

    def ticked(self, now: float, meant: float | None = None) -> float:
        """The observer looks, ``meant`` seconds after it last did (default: ``tick``); returns how late it was."""
        late = 0.0 if self._last is None else now - self._last - (self._tick if meant is None else meant)
        self._last = now
        if late > self._slack:
            self.stumbled()
        else:
            self._clean += 1
            if self._clean % CLEAN == 0 and self.score:
                self.score -= 1
        return max(0.0, late)

    def stumbled(self) -> None:
        """Something of its own went wrong: a beat that failed, a loop that stood still."""
        self.score = min(WORST, self.score + 1)
        self._clean = 0

    @property
    def sound(self) -> bool:
        """Whether it may say of anybody that it is dead."""
        return self._clean >= CLEAN

    @property
    def stretch(self) -> float:
        """By how much its thresholds are longer than those of a healthy observer."""
        return 1.0 + self.score


@dataclass(frozen=True, slots=True)
class Judgement:
    """What changed at a look. ``held``: more than half of all are late at once, so nobody is suspected for being late."""

    suspected: Mapping[str, str]
    cleared: tuple[str, ...]
    held: bool


@dataclass(slots=True)
class _Peer:
    at: float
    beat: float
    intervals: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    broken: bool = False
    total: float = 0.0
    squares: float = 0.0

    def heard(self, at: float, *, regular: bool) -> None:
        if not regular:
            self.at = at
            return
        if len(self.intervals) == REMEMBERED:
            gone = self.intervals[0]
            self.total -= gone
            self.squares -= gone * gone
        interval = at - self.at
        self.intervals.append(interval)
        self.total += interval
        self.squares += interval * interval
        self.at = at

    def patience(self) -> float:
        """The age at which its last beat is late: three beats, or four deviations above the mean of what it usually takes."""
        count = len(self.intervals)
        if count < FEW:
            return 3 * self.beat
        mean = self.total / count
        deviation = math.sqrt(max(0.0, self.squares / count - mean * mean))
        return max(3 * self.beat, mean + 4 * deviation)


class Suspicion:
    """What one agent thinks of its peers. ``beat`` is the interval, in seconds, that is expected of a peer nothing else is known of.

    Feed it with `heard`, `broken` and `reported`; `judge` looks at everybody, `why` tells of one what the last look said.
    """

    def __init__(self, beat: float, health: Health | None = None) -> None:
        self._beat = beat
        self.health = health or Health(beat, beat)
        self._peers: dict[str, _Peer] = {}
        self._reports: dict[str, frozenset[str]] = {}
        self._suspects: dict[str, str] = {}
        self._looked: float | None = None
        self.held = False

    def heard(self, peer: str, at: float, beat: float | None = None) -> None:
        """The peer beat at ``at``, and means to every ``beat`` seconds. What is not newer than known changes nothing."""
        known = self._peers.get(peer)
        if known is None:
            self._peers[peer] = _Peer(at, beat or self._beat)
        elif at > known.at:
            known.beat = beat or known.beat
            # Who looks more seldom than the peer beats sees some beats only: what lies between two of them says nothing.
            known.heard(at, regular=self._looked is None or at - self._looked <= 1.5 * known.beat)

    def broken(self, peer: str, open: bool) -> None:
        """Our circuit breaker for the peer opened, or closed."""
        known = self._peers.get(peer)
        if known:
            known.broken = open

    def reported(self, by: str, suspects: Iterable[str]) -> None:
        """All that the peer ``by`` suspects now. Two that say so of one are believed."""
        self._reports[by] = frozenset(suspects)

    def forget(self, peer: str) -> None:
        """It left or died: it is nobody's suspect, and its reports count no more."""
        self._peers.pop(peer, None)
        self._reports.pop(peer, None)
        self._suspects.pop(peer, None)

    def judge(self, now: float) -> Judgement:
        """Look at everybody; returns who became suspect and why ('late', 'breaker', 'peers'), and who no longer is."""
        late = {
            id
            for id, peer in self._peers.items()
            if now - peer.at > peer.patience() * self.health.stretch
        }  # fmt: skip
        self._looked = now
        # When most are late, it is we who are, or the server.
        self.held = len(late) >= FEW_LATE and 2 * len(late) > len(self._peers)
        votes: dict[str, int] = {}
        for by, named in self._reports.items():
            for id in named:
                if id != by:
                    votes[id] = votes.get(id, 0) + 1
        before, after = self._suspects, dict[str, str]()
        for id, peer in self._peers.items():
            if peer.broken:
                after[id] = "breaker"
            elif id in late and not self.held:
                after[id] = "late"
            elif votes.get(id, 0) >= 2:
                after[id] = "peers"
        self._suspects = after
        return Judgement(
            {id: reason for id, reason in after.items() if id not in before},
            tuple(id for id in before if id not in after),
            self.held,
        )

    def why(self, peer: str) -> str:
        """'' for a peer that is not suspect, else the reason, by the last look."""
        return self._suspects.get(peer, "")

    @property
    def suspects(self) -> Mapping[str, str]:
        """Suspect -> reason, by the last look."""
        return dict(self._suspects)

    def firsthand(self) -> tuple[str, ...]:
        """Those suspected from what we saw ourselves: what to report to others (hearsay would feed on itself)."""
        return tuple(sorted(id for id, reason in self._suspects.items() if reason != "peers"))
