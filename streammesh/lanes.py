"""Which streams an agent serves, and in which order.

Each capability has a stream per priority in use; the agent's inbox goes before them all. Claim by claim another lane and
another capability go first, by weight, so that neither a low priority nor a quiet capability ever starves. Messages have
a stream and slots of their own, so that an agent with nothing but work hears them all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from streammesh.keys import LANES, Keys, raw_tag

__all__ = ["Lanes", "Mail", "Order", "Wakes"]

#: Which lane goes first, claim by claim: high 6, normal 3, low 1 in ten.
TURNS = ("high", "high", "normal", "high", "high", "normal", "high", "high", "normal", "low")


@dataclass(frozen=True, slots=True)
class Order:
    """Streams in the order of one claim, with what the script wants to know of each, and their capabilities ('' the inbox)."""

    streams: tuple[str, ...]
    about: tuple[str, ...]
    capabilities: tuple[str, ...]


class Lanes:
    """The streams of the agent ``me`` for its ``capabilities``, shard by shard."""

    def __init__(self, keys: Keys, me: str, capabilities: Sequence[str]) -> None:
        self._keys = keys
        self._me = me
        self._capabilities = tuple(capabilities)
        self._used = [{"normal"} for _ in range(keys.shards)]
        self._turns: list[Iterator[Order] | None] = [None for _ in range(keys.shards)]
        #: Capabilities that are offered no more: what is pending of them is looked after all the same.
        self.closed: set[str] = set()
        #: Capabilities of which nothing new is taken.
        self.paused: frozenset[str] = frozenset()

    def own(self, shard: int) -> str:
        """The stream that is for nobody else: what was read of it is never handed back."""
        return self._keys.inbox(self._me, shard)

    def streams(self, shard: int) -> tuple[list[str], list[str]]:
        """Every stream of which entries may be held, paused or not, and the first words of their raw ids."""
        lanes = sorted(self._used[shard])
        streams = [self._keys.tasks(name, lane, shard) for name in self._capabilities for lane in lanes]
        streams.append(self._keys.inbox(self._me, shard))
        return streams, [raw_tag(stream, shard) for stream in streams]

    def order(self, shard: int) -> Order:
        """The streams for the next claim or read."""
        turns = self._turns[shard]
        if turns is None:
            turns = self._turns[shard] = cycle(self._round(shard))
        return next(turns)

    def _round(self, shard: int) -> list[Order]:
        names = [name for name in self._capabilities if name not in self.paused and name not in self.closed]
        width = max(1, len(names))
        # Neighbouring turns differ in lane first, then in capability.
        return [self._turn(shard, lane, names[shift:] + names[:shift]) for shift in range(width) for lane in TURNS]

    def _turn(self, shard: int, first: str, names: Sequence[str]) -> Order:
        inbox = self._keys.inbox(self._me, shard)
        streams, about, capabilities = [inbox], ["", raw_tag(inbox, shard)], [""]
        for lane in (first, *(other for other in LANES if other != first)):
            if lane in self._used[shard]:
                for name in names:
                    stream = self._keys.tasks(name, lane, shard)
                    streams.append(stream)
                    about += (name, raw_tag(stream, shard))
                    capabilities.append(name)
        return Order(tuple(streams), tuple(about), tuple(capabilities))

    def pause(self, paused: frozenset[str]) -> bool:
        """Leave out these capabilities, and no others; True when that changes anything."""
        paused &= frozenset(self._capabilities)
        if paused == self.paused:
            return False
        self.paused = paused
        self._turns = [None for _ in self._turns]
        return True

    def of(self, capability: str, shard: int) -> list[tuple[str, str]]:
        """The streams of one capability in the lanes that are in use, each with it."""
        return [(self._keys.tasks(capability, lane, shard), capability) for lane in sorted(self._used[shard])]

    def open(self, capability: str) -> None:
        """Serve one capability (again)."""
        self.closed.discard(capability)
        if capability not in self._capabilities:
            self._capabilities += (capability,)
        self._turns = [None for _ in self._turns]

    def close(self, capability: str) -> None:
        """Take nothing of it any more."""
        self.closed.add(capability)
        self._turns = [None for _ in self._turns]

    def missing(self, shard: int) -> list[tuple[str, list[tuple[str, str]]]]:
        """Lanes not seen in use so far, each with its streams and their capabilities."""
        names = [name for name in self._capabilities if name not in self.closed]
        if not names:
            return []
        return [
            (lane, [(self._keys.tasks(name, lane, shard), name) for name in names])
            for lane in LANES
            if lane not in self._used[shard]
        ]

    def add(self, shard: int, lane: str) -> None:
        """A lane is in use from now on."""
        self._used[shard].add(lane)
        self._turns[shard] = None


class Wakes:
    """The streams of wake-ups for the runs of ``workflows`` (as in ``{mesh}:runs:<workflow>``), shard by shard.

    ``client`` is whom the scripts nudge about a run that is being executed.
    """

    def __init__(self, keys: Keys, client: str, workflows: Sequence[str]) -> None:
        self._keys = keys
        self._client = client
        self._workflows = tuple(workflows)
        self._turns = [cycle(self._round(shard)) for shard in range(keys.shards)]

    def own(self, shard: int) -> str:
        """Wake-ups are for whoever takes them."""
        return ""

    def streams(self, shard: int) -> tuple[list[str], list[str]]:
        """Every stream, and the first words of raw ids, marked as those of runs."""
        streams = [self._keys.runs(name, shard) for name in self._workflows]
        return streams, [f"run {raw_tag(stream, shard)}" for stream in streams]

    def order(self, shard: int) -> Order:
        """The streams for the next claim or read."""
        return next(self._turns[shard])

    def _round(self, shard: int) -> list[Order]:
        names = self._workflows
        return [self._turn(shard, names[shift:] + names[:shift]) for shift in range(max(1, len(names)))]

    def _turn(self, shard: int, names: Sequence[str]) -> Order:
        streams = [self._keys.runs(name, shard) for name in names]
        about = [
            word
            for name, stream in zip(names, streams, strict=True)
            for word in (f"run {self._client} {name}", raw_tag(stream, shard))
        ]
        return Order(tuple(streams), tuple(about), tuple(names))

    def pause(self, paused: frozenset[str]) -> bool:
        """Capabilities are paused, workflows are not."""
        return False

    def missing(self, shard: int) -> list[tuple[str, list[tuple[str, str]]]]:
        """Wake-ups have no lanes."""
        return []

    def add(self, shard: int, lane: str) -> None:
        """Wake-ups have no lanes."""


class Mail:
    """The stream of messages for the agent ``me``, shard by shard: no lanes, no turns, no pauses."""

    def __init__(self, keys: Keys, me: str) -> None:
        streams = [keys.mail(me, shard) for shard in range(keys.shards)]
        self._orders = [
            Order((stream,), (f"mail {me}", raw_tag(stream, shard)), ("",)) for shard, stream in enumerate(streams)
        ]

    def own(self, shard: int) -> str:
        """All of it."""
        return self._orders[shard].streams[0]

    def streams(self, shard: int) -> tuple[list[str], list[str]]:
        """The stream, and the first word of its raw ids."""
        order = self._orders[shard]
        return [*order.streams], [order.about[1]]

    def order(self, shard: int) -> Order:
        """Always the same."""
        return self._orders[shard]

    def pause(self, paused: frozenset[str]) -> bool:
        """Capabilities are paused, messages are not."""
        return False

    def missing(self, shard: int) -> list[tuple[str, list[tuple[str, str]]]]:
        """Messages have no lanes."""
        return []

    def add(self, shard: int, lane: str) -> None:
        """Messages have no lanes."""
