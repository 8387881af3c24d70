"""A network of gossiping participants on a virtual clock: everything that happens follows from the seed.

Each participant begins an exchange once in a round, at a moment of its own. Frames are serialised, take some time, may be
lost, doubled, overtaken, or cut off; participants may freeze, and crash and come back with a new generation. At each
delivery the invariants are checked for what was delivered.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable
from hashlib import blake2b
from random import Random
from typing import Any

from streammesh.gossip import Frame, Gossip

ROUND = 2.0


class Network:
    """``n`` participants called a.0 to a.<n-1>, who all know of each other."""

    def __init__(
        self,
        n: int,
        seed: int,
        *,
        loss: float = 0.0,
        double: float = 0.0,
        latency: tuple[float, float] = (0.001, 0.05),
        frame: int = 16_384,
        grace: float = 3600.0,
        checked: bool = True,
    ) -> None:
        self.rng = Random(seed)
        self.loss, self.double, self.latency, self.frame, self.grace, self.checked = (
            loss, double, latency, frame, grace, checked
        )  # fmt: skip
        self.now = 0.0
        self.names = [f"a.{number}" for number in range(n)]
        self.generations = dict.fromkeys(self.names, 0)
        self.nodes: dict[str, Gossip] = {}
        self.frozen: dict[str, list[bytes]] = {}
        self.side: dict[str, int] = {}
        self.frames = self.sent = self.largest = 0
        self.exchange_bytes = 0
        self._phase = {name: self.rng.random() * ROUND for name in self.names}
        self._events: list[tuple[float, int, str, bytes]] = []
        self._count = 0
        self._trace = blake2b(digest_size=16)
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}
        for name in self.names:
            self.start(name)
            self._push(self._phase[name], name, b"")

    # -- what may be done to it

    def start(self, name: str) -> Gossip:
        """(Re)start a participant: a new generation, and nothing remembered."""
        self.generations[name] += 1
        node = Gossip(name, self.generations[name], frame=self.frame, grace=self.grace)
        node.see(self.names, self.now)
        self.nodes[name] = node
        self.frozen.pop(name, None)
        self._seen = {pair: seen for pair, seen in self._seen.items() if pair[0] != name}
        return node

    def crash(self, name: str) -> None:
        del self.nodes[name]

    def freeze(self, name: str) -> None:
        self.frozen[name] = []

    def thaw(self, name: str) -> None:
        for data in self.frozen.pop(name):
            self._push(self.now, name, data)

    def cut(self, some: Iterable[str]) -> None:
        """These hear nothing of the others, and the others nothing of them; with nobody given, it is healed."""
        self.side = dict.fromkeys(some, 1)

    # -- time

    def rounds(self, count: int, until: Callable[[], bool] | None = None) -> int:
        """Let so many rounds pass, or fewer when ``until`` holds after one; returns how many."""
        for number in range(1, count + 1):
            end = self.now + ROUND
            while self._events and self._events[0][0] < end:
                self.now, _, name, data = heapq.heappop(self._events)
                self._happen(name, data)
            self.now = end
            if until and until():
                return number
        return count

    def _happen(self, name: str, data: bytes) -> None:
        node = self.nodes.get(name)
        if not data:
            self._push(self.now + ROUND, name, b"")
            if node and name not in self.frozen:
                self._send(node.tick(self.now, self.rng))
        elif name in self.frozen:
            self.frozen[name].append(data)
        elif node:
            frame = Frame(*json.loads(data))
            self._trace.update(f"{self.now:.6f} {name}".encode() + data)
            self._send(node.receive(frame))
            if self.checked:
                self._check(node, frame.body)

    def _send(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            data = json.dumps(frame, separators=(",", ":")).encode()
            size = len(json.dumps(frame.body, separators=(",", ":")))
            assert size <= self.frame, f"a frame of {size} bytes: {frame.body['t']}"
            self.frames += 1
            self.sent += len(data)
            self.largest = max(self.largest, size)
            if self.side and self.side.get(frame.source, 0) != self.side.get(frame.to, 0):
                continue
            copies = 0 if self.rng.random() < self.loss else 2 if self.rng.random() < self.double else 1
            for _ in range(copies):
                self._push(self.now + self.rng.uniform(*self.latency), frame.to, data)

    def _push(self, at: float, name: str, data: bytes) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, name, data))

    # -- what holds

    def _check(self, node: Gossip, body: dict[str, Any]) -> None:
        assert node.counters.unreadable == 0
        for owner, *_ in body.get("items", ()):
            _, generation, version, _ = next((one for one in node.digest() if one[0] == owner), ("", 0, 0, 0))
            before = self._seen.get((node.me, owner), (0, 0))
            assert (generation, version) >= before, f"{node.me} went back on {owner}: {before} to {generation, version}"
            self._seen[node.me, owner] = generation, version
            truth = self.nodes.get(owner)
            if truth and generation == self.generations[owner]:
                newest = next((one[2] for one in truth.digest() if one[0] == owner), 0)
                assert version <= newest, f"{node.me} knows {owner} up to {version}, it has said {newest}"

    def knows(self, owner: str, key: str, value: Any) -> int:
        """How many participants have this value of the key."""
        return sum(node.get(key, owner) == value for node in self.nodes.values())

    def converged(self) -> bool:
        """Whether all know the same, by hash."""
        return len({node.root for node in self.nodes.values()}) == 1

    def check_views(self) -> None:
        """Everybody sees of everybody exactly what that one says: hashes may be equal, views must be."""
        for node in self.nodes.values():
            for owner in self.nodes.values():
                assert node.view(owner.me) == owner.view(owner.me), f"{node.me} on {owner.me}"

    def trace(self) -> str:
        """A hash over everything that was delivered, when, and to whom."""
        return self._trace.hexdigest()


def settled(n: int, seed: int, *, loss: float = 0.0, **options: Any) -> Network:
    """A network in which all know the card of everybody, and tell no more news."""
    network = Network(n, seed, **options)
    items = []
    for node in network.nodes.values():
        node.set("card", {"capabilities": ["summarize"], "slots": 32})
        items += node.receive(Frame("", node.me, {"v": 1, "t": "dig", "at": list(range(64)), "d": []}))
    for node in network.nodes.values():
        for frame in items:
            node.receive(frame)
        node._news.clear()
    assert network.converged()
    network.loss = loss
    return network
