"""Scuttlebutt: what each owner says reaches everybody by pairs that compare notes. Pure: no clock, no I/O, no chance of its own.

An exchange is up to five frames, and ends as soon as both know the same:

    syn    a hash over everything; equal: that was all
    sums   64 hashes, each over a part of the owners
    dig    [owner, generation, version, collected] for the owners of the parts that differ
    delta  what the other lacks, and what is wanted of it
    delta  what was wanted

``syn`` and ``sums`` carry news besides: what was learned a moment ago, told on about log2(peers) times, so that a change
need not wait for five frames to arrive.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from streammesh.knowledge import AROUND, BUCKETS, Knowledge

__all__ = ["Frame", "Gossip"]

#: The most bytes of news in one frame.
NEWS = 1024

_VERSION = 1


class Frame(NamedTuple):
    """One message from ``source`` to ``to``; ``body`` is JSON."""

    source: str
    to: str
    body: dict[str, Any]


class Gossip(Knowledge):
    """One participant: `tick` it once in a while, and give it what comes by `receive`; both return what is to be sent."""

    #: What does not fit into one frame has its turn in another.
    _turn = 0

    def tick(self, now: float, rng: Random) -> list[Frame]:
        """Begin an exchange with one peer, and let go what has had its time. ``now`` is seconds that only grow."""
        self._now = now
        self._collect(now)
        if not self.peers:
            return []
        self.counters.begun += 1
        return [self._frame_to(rng.choice(self.peers), {"t": "syn", "root": self.root}, self._headlines(frozenset()))]

    # -- frames

    def receive(self, frame: Frame) -> list[Frame]:
        """Take in a frame; returns the answer, if there is one. What cannot be read is counted, never raised."""
        body = frame.body
        try:
            if body["v"] != _VERSION:
                raise ValueError(body["v"])
            news = self._take(body.get("items", ()))
            answer = {"syn": self._on_syn, "sums": self._on_sums, "dig": self._on_dig, "delta": self._on_delta}[
                body["t"]
            ]
            return list(answer(frame.source, body, news))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            self.counters.unreadable += 1
            return []

    def _frame_to(self, to: str, body: dict[str, Any], items: list[Any]) -> Frame:
        return Frame(self.me, to, {"v": _VERSION, **body, **({"items": items} if items else {})})

    def _on_syn(self, source: str, body: Mapping[str, Any], news: frozenset[str]) -> Iterator[Frame]:
        self.counters.answered += 1
        if body["root"] == self.root:
            self.counters.equal += 1
            return
        sums = b64encode(b"".join((bucket & 0xFFFFFFFF).to_bytes(4) for bucket in self._buckets)).decode()
        yield self._frame_to(source, {"t": "sums", "root": self.root, "sums": sums}, self._headlines(news))

    def _on_sums(self, source: str, body: Mapping[str, Any], _: frozenset[str]) -> Iterator[Frame]:
        if body["root"] == self.root:
            return
        packed = b64decode(body["sums"], validate=True)
        theirs = [int.from_bytes(packed[at : at + 4]) for at in range(0, 4 * BUCKETS, 4)]
        differ = [at for at, own in enumerate(self._buckets) if own & 0xFFFFFFFF != theirs[at]] or list(range(BUCKETS))
        # Not always from the first: what does not fit into this frame has its turn in another.
        self._turn += 1
        start = self._turn % len(differ)
        parts, room = list[int](), self._frame - AROUND
        listed: list[list[Any]] = []
        for part in differ[start:] + differ[:start]:
            room -= 4 + sum(len(owner) + 40 for owner in self._listed[part])
            if room < 0 and parts:
                break
            parts.append(part)
            listed += [[owner, *self._place(owner)] for owner in self._listed[part]]
        yield self._frame_to(source, {"t": "dig", "at": parts, "d": listed}, [])

    def _on_dig(self, source: str, body: Mapping[str, Any], _: frozenset[str]) -> Iterator[Frame]:
        theirs = {owner: (int(gen), int(version), int(collected)) for owner, gen, version, collected in body["d"]}
        wanted, room = [], (self._frame - AROUND) // 4
        for owner, (generation, version, _collected) in theirs.items():
            if (generation, version) > self._place(owner)[:2] and self._welcome(owner, generation):
                room -= len(owner) + 40
                if room < 0:
                    break
                wanted.append([owner, *self._place(owner)])
        owners = [owner for part in body["at"] for owner in self._listed[part]]
        items = self._items({owner: theirs.get(owner, (0, 0, 0)) for owner in owners}, (self._frame - AROUND) * 3 // 4)
        if items or wanted:
            yield self._frame_to(source, {"t": "delta", "want": wanted}, items)

    def _on_delta(self, source: str, body: Mapping[str, Any], _: frozenset[str]) -> Iterator[Frame]:
        wanted = {owner: (int(gen), int(version), int(collected)) for owner, gen, version, collected in body["want"]}
        if items := self._items(wanted, self._frame - AROUND):
            yield self._frame_to(source, {"t": "delta", "want": []}, items)

    def _headlines(self, told: frozenset[str]) -> list[Any]:
        """The news that fits, least told first; ``told`` are owners of which the other has just told us."""
        items, room = [], min(NEWS, self._frame - AROUND)
        for owner, (times, base) in list(self._news.items()):
            if room < 64:
                break
            if owner in told:
                continue
            item, size = self._item(owner, base, room)
            if item:
                items.append(item)
                room -= size
            # What does not fit into the room for news reaches everybody without.
            del self._news[owner]
            if item and times > 1:
                self._news[owner] = [times - 1, base]
        return items

    def _take(self, items: Iterable[Any]) -> frozenset[str]:
        return frozenset(owner for item in items if (owner := self._apply(*item)))
